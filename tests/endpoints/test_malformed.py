"""Malformed replies are paid for: they are remembered, and no request has more of them than its tries."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.endpoints import server as server_lib
from tests.endpoints.server import Answer
from tests.endpoints.test_asking import ask
from tests.endpoints.test_asking import requests
from tests.endpoints.test_asking import settings
from vlguard_jax.endpoints import asking
from vlguard_jax.endpoints import client


@pytest.mark.parametrize("body", [b"{}", b"x" * 100, b'{"choices": []}'])
def test_no_more_malformed_replies_than_tries_however_often_it_is_started(body: bytes, tmp_path: pathlib.Path) -> None:
    def answers(asked: dict[str, Any], before: int) -> Answer:
        return Answer(body=body) if "question 0" in server_lib.last_text(asked) else Answer("yes")

    with server_lib.serving(answers) as server:
        chosen = settings(server.url, retries=2)
        for run in range(3):
            found, endpoint = ask(chosen, tmp_path, requests(2))
            failure = found["r0"]
            assert isinstance(failure, asking.Failure) and failure.kind == client.MALFORMED
            assert isinstance(found["r1"], asking.Reply) and endpoint.tally.calls == (4 if not run else 0)
        assert "3 of them, the last one: " in failure.told and "raise retries to ask again" in failure.told
        ask(settings(server.url, retries=4), tmp_path, requests(1))
        assert max(server.asked.values()) == 5 and server.asked.total() == 6


def test_those_of_several_starts_are_counted_together(tmp_path: pathlib.Path) -> None:
    """As after kills: one call each, and then a reply."""
    with server_lib.serving(
        lambda body, before: Answer("yes" if before == 2 else "", body=None if before == 2 else b"{}")
    ) as server:
        for _ in range(2):
            ask(settings(server.url, retries=0), tmp_path, requests(1))
        assert server.asked.total() == 1
        found, _ = ask(settings(server.url, retries=2), tmp_path, requests(1))
        assert isinstance(found["r0"], asking.Reply) and server.asked.total() == 3
