"""What is paid for without a reply, and what is not: malformed replies are remembered, and no request has more of them
than its tries; refused keys cost nothing."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

import pytest

from tests.endpoints import server as server_lib
from tests.endpoints.server import Answer
from tests.endpoints.test_asking import ask
from tests.endpoints.test_asking import requests
from tests.endpoints.test_asking import settings
from vlguard_jax import errors
from vlguard_jax.endpoints import asking
from vlguard_jax.endpoints import client


@pytest.mark.parametrize(("status", "kind"), [(500, client.BROKEN), (429, client.BUSY), (400, client.REJECTED)])
@pytest.mark.parametrize("answer", [Answer(body=b" " * 1000, trickle=0.02), Answer(body=b" " * (1 << 25))])
def test_an_error_that_never_ends_is_cut(answer: Answer, status: int, kind: str, tmp_path: pathlib.Path) -> None:
    """By its status it is what it is, whatever else the server says; the client would read all of it."""
    begun = time.monotonic()
    with server_lib.serving(lambda asked, before: dataclasses.replace(answer, status=status)) as server:
        found, endpoint = ask(settings(server.url, timeout=0.3, retries=0), tmp_path, requests(1))
        assert time.monotonic() - begun < 10 and not server.paid.total()
    assert endpoint.tally.failed == {kind: 1} and isinstance(found["r0"], asking.Failure)


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


@pytest.mark.parametrize("status", [401, 403, 404, 402])
def test_a_wrong_key_or_model_costs_no_money(status: int, tmp_path: pathlib.Path) -> None:
    """Nor is it told as the calls of a killed process."""
    with server_lib.serving(
        lambda body, before: Answer("yes" if before else "no", status=200 if before else status)
    ) as server:
        chosen = settings(server.url, concurrency=1, max_dollars=0.0002)
        with pytest.raises(errors.UserError, match=str(status)):
            ask(chosen, tmp_path, requests(1))
        found, endpoint = ask(chosen, tmp_path, requests(1))
    assert isinstance(found["r0"], asking.Reply) and not endpoint.notices
    assert "spent in all 2 of" in endpoint.told()
