"""An endpoint is asked through every fault of a real server: nothing lost, nothing invented, the budget kept."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import email.utils
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest

from tests import source
from tests.endpoints import server as server_lib
from tests.endpoints.server import Answer
from vlguard_jax import errors
from vlguard_jax.endpoints import asking
from vlguard_jax.endpoints import client
from vlguard_jax.endpoints import journal
from vlguard_jax.endpoints import request as request_lib
from vlguard_jax.endpoints import settings as settings_lib

WHERE = "config.remote_judges.one"


def settings(url: str, **changes: Any) -> settings_lib.EndpointSettings:
    base = settings_lib.EndpointSettings(
        base_url=url, model="judge", input_price=2.0, output_price=8.0, first_wait=0.01, timeout=20.0, picture_tokens=85
    )
    return dataclasses.replace(base, **changes)


def requests(n: int) -> list[request_lib.Request]:
    return [
        request_lib.Request(f"r{i}", (request_lib.Message("user", (f"question {i}",)),), max_tokens=10)
        for i in range(n)
    ]


def ask(
    chosen: settings_lib.EndpointSettings, folder: pathlib.Path, asked: Iterable[request_lib.Request]
) -> tuple[dict[str, asking.Reply | asking.Failure], asking.Endpoint]:
    with asking.opened(chosen, folder, where=WHERE) as endpoint:
        found = {outcome.id: outcome for outcome in endpoint.ask(asked)}
        endpoint.told()
    return found, endpoint


def echo(body: dict[str, Any], before: int) -> Answer:
    return Answer(server_lib.last_text(body).upper())


# name -> (what the server does first, the kind of the failure where it goes on like this)
FAULTS: dict[str, tuple[Answer, str]] = {
    "time-out": (Answer(before=lambda: time.sleep(1.0)), client.TIME_OUT),
    "busy": (Answer("slow down", status=429), client.BUSY),
    "busy, try again": (Answer("slow down", status=429, headers={"Retry-After": "0.05"}), client.BUSY),
    "broken": (Answer("oops", status=500), client.BROKEN),
    "bad gateway": (Answer(status=502, body=b"<html>"), client.BROKEN),
    "cut": (Answer("one two", cut=True), client.CUT),
    "not JSON": (Answer(body=b"<html>busy</html>"), client.MALFORMED),
    "half JSON": (Answer(body=b'{"choices": [{'), client.MALFORMED),
    "empty choices": (Answer(body=b'{"choices": []}'), client.MALFORMED),
    "no text": (Answer(choice={"message": {"role": "assistant", "content": None}}), client.MALFORMED),
    "surrogate": (Answer(body=b'{"choices": [{"message": {"content": "\\ud83d"}}]}'), client.MALFORMED),
    "error in a reply": (Answer(body=b'{"error": {"message": "upstream"}}'), client.BROKEN),
    "slow": (Answer("a", trickle=0.02), client.TIME_OUT),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_costs_no_reply(name: str, tmp_path: pathlib.Path) -> None:
    fault, _ = FAULTS[name]
    with server_lib.serving(lambda body, before: echo(body, before) if before else fault) as server:
        found, endpoint = ask(settings(server.url, timeout=0.4), tmp_path, requests(3))
    assert {one.id: one.text for one in found.values() if isinstance(one, asking.Reply)} == {
        f"r{i}": f"QUESTION {i}" for i in range(3)
    }
    assert (endpoint.tally.calls, endpoint.tally.again, endpoint.tally.failed.total()) == (6, 3, 0)
    assert set(server.asked.values()) == {2}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays_is_a_failure_and_asked_anew_later(name: str, tmp_path: pathlib.Path) -> None:
    fault, kind = FAULTS[name]
    with server_lib.serving(lambda body, before: fault) as server:
        chosen = settings(server.url, timeout=0.3, retries=1)
        found, endpoint = ask(chosen, tmp_path, requests(2))
    assert [type(one) for one in found.values()] == [asking.Failure] * 2
    assert endpoint.tally.failed == {kind: 2} and endpoint.tally.calls == 4 and not endpoint.tally.replied
    assert all(one.kind == kind and one.told for one in found.values() if isinstance(one, asking.Failure))
    with server_lib.serving(echo) as server:
        # at another address it would be another request
        moved = dataclasses.replace(chosen, base_url=server.url)
        found, _ = ask(moved, tmp_path, requests(2))
    assert all(isinstance(one, asking.Reply) and not one.cached for one in found.values())


def test_retry_after_is_waited_for_in_both_forms(tmp_path: pathlib.Path) -> None:
    at: dict[int, str] = {}

    def judge(body: dict[str, Any], before: int) -> Answer:
        if before == 0:
            return Answer("busy", status=429, headers={"Retry-After": "0.5"})
        if before == 1:
            at[1] = email.utils.formatdate(time.time() + 2, usegmt=True)
            return Answer("busy", status=503, headers={"Retry-After": at[1]})
        return echo(body, before)

    with server_lib.serving(judge) as server:
        found, _ = ask(settings(server.url), tmp_path, requests(1))
    assert isinstance(found["r0"], asking.Reply)
    first, second = (later - sooner for sooner, later in zip(server.times, server.times[1:], strict=False))
    assert first >= 0.5 and second >= 0.9  # a date has whole seconds


def test_a_wait_beyond_the_longest_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    with server_lib.serving(lambda body, before: Answer("x", status=429, headers={"Retry-After": "3600"})) as server:
        found, endpoint = ask(settings(server.url), tmp_path, requests(1))
    assert isinstance(found["r0"], asking.Failure) and endpoint.tally.calls == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer("I'd rather not", choice={"message": {"content": None, "refusal": "No."}}), "No."),
        (Answer(choice={"finish_reason": "content_filter"}), ""),
        (Answer(status=400, body=b'{"error": {"code": "content_policy_violation", "message": "no"}}'), ""),
    ],
)
def test_a_refusal_is_a_reply_that_says_so(answer: Answer, words: str, tmp_path: pathlib.Path) -> None:
    with server_lib.serving(lambda body, before: answer) as server:
        found, _ = ask(settings(server.url), tmp_path, requests(1))
        again, endpoint = ask(settings(server.url), tmp_path, requests(1))
    for reply in (found["r0"], again["r0"]):
        assert isinstance(reply, asking.Reply) and reply.refused and reply.text == words
    assert endpoint.tally.cached == 1 and server.asked.total() == 1


def test_never_the_same_twice(tmp_path: pathlib.Path) -> None:
    same = [dataclasses.replace(one, id=f"again {one.id}") for one in requests(5)]
    with server_lib.serving(echo) as server:
        found, endpoint = ask(settings(server.url), tmp_path, [*requests(5), *same])
        assert len(found) == 10 and server.asked.total() == 5 and endpoint.tally.cached == 5
        later, endpoint = ask(settings(server.url), tmp_path, [*same, *requests(6)])
        assert server.asked.total() == 6 and endpoint.tally.calls == 1
        assert later["again r3"].text == "QUESTION 3"  # type: ignore[union-attr]
        fresh = [dataclasses.replace(one, again=1) for one in requests(2)]
        _, endpoint = ask(settings(server.url), tmp_path, fresh)
        assert endpoint.tally.calls == 2
        _, endpoint = ask(settings(server.url, temperature=0.5), tmp_path, requests(2))
        assert endpoint.tally.calls == 2


def test_no_more_at_a_time_than_allowed(tmp_path: pathlib.Path) -> None:
    def judge(body: dict[str, Any], before: int) -> Answer:
        return Answer("a", before=lambda: time.sleep(0.05))

    read = []

    def lazy() -> Iterable[request_lib.Request]:
        for one in requests(20):
            read.append(one.id)
            yield one

    with (
        server_lib.serving(judge) as server,
        asking.opened(settings(server.url, concurrency=3), tmp_path, where=WHERE) as endpoint,
    ):
        outcomes = endpoint.ask(lazy())
        next(outcomes)
        assert len(read) <= 6
        assert len(list(outcomes)) == 19
    assert server.most == 3


def test_calls_stay_in_the_budget_over_all_runs(tmp_path: pathlib.Path) -> None:
    with server_lib.serving(echo) as server:
        found, endpoint = ask(settings(server.url, max_calls=3), tmp_path, requests(8))
        assert endpoint.tally.failed == {asking.BUDGET: 5} and server.asked.total() == 3
        found, endpoint = ask(settings(server.url, max_calls=3), tmp_path, requests(8))
        assert server.asked.total() == 3 and endpoint.tally.cached == 3
        failures = [one for one in found.values() if isinstance(one, asking.Failure)]
        assert str(asking.unanswered(failures, WHERE)) == (
            f"{WHERE}: requests without a reply: 5: budget 5 (the budget of 3 calls is used up); what was replied is"
            f" kept: raise {WHERE}.max_calls or max_dollars, and start the same command again to go on"
        )
        found, _ = ask(settings(server.url, max_calls=8), tmp_path, requests(8))
    assert server.asked.total() == 8 and all(isinstance(one, asking.Reply) for one in found.values())


def test_money_stays_in_the_budget(tmp_path: pathlib.Path) -> None:
    """100 tokens at $2 and 10 at $8 a million: $0.00028 a reply, by hand."""
    with server_lib.serving(echo) as server:
        _, endpoint = ask(settings(server.url, max_dollars=0.002, concurrency=1), tmp_path, requests(20))
    assert server.paid.total() * 0.00028 <= 0.002 < (server.paid.total() + 1) * 0.00028 + 0.00028
    assert endpoint.tally.prompt_tokens == 100 * server.paid.total()
    assert f"${server.paid.total() * 0.00028:.4f} of $0.00" in endpoint.told()
    assert endpoint.tally.failed == {asking.BUDGET: 20 - server.paid.total()}


def test_what_may_have_been_paid_counts(tmp_path: pathlib.Path) -> None:
    """A reply that was cut may be billed, one that says no tokens costs what it may at most."""
    with server_lib.serving(lambda body, before: Answer("a", usage=None, cut=not before)) as server:
        one = requests(1)[0]
        with asking.opened(settings(server.url), tmp_path, where=WHERE) as endpoint:
            list(endpoint.ask([one]))
            most = request_lib.most_dollars(one, settings(server.url))
            assert f"${2 * most:,.4f} of" in endpoint.told() and "not told for 1 replies" in endpoint.told()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "", "refuses requests without a key; name key_env"),
        (403, "", "refuses requests without a key"),
        (404, "", "knows no model 'judge', or base_url is wrong"),
        (402, "", "has no money left"),
        (429, "insufficient_quota", "has no money left"),
    ],
)
def test_what_no_request_can_pass_ends_at_once(status: int, code: str, words: str, tmp_path: pathlib.Path) -> None:
    body = json.dumps({"error": {"message": "says the server", "code": code}}).encode()
    serving = server_lib.serving(lambda b, before: Answer(status=status, body=body))
    with serving as server, pytest.raises(errors.UserError) as error:
        ask(settings(server.url, concurrency=2), tmp_path, requests(50))
    assert words in str(error.value) and "says the server" in str(error.value) and str(error.value).startswith(WHERE)
    assert server.asked.total() <= 2


def test_a_server_that_is_away_is_not_asked_for_long(tmp_path: pathlib.Path) -> None:
    _, endpoint = ask(settings("http://127.0.0.1:9/v1", retries=0, concurrency=1), tmp_path, requests(50))
    assert endpoint.tally.failed == {client.CUT: asking.IN_A_ROW, asking.GIVEN_UP: 50 - asking.IN_A_ROW}
    assert "$0.0000 of" in endpoint.told()


def test_the_key_is_sent_and_nowhere_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", server_lib.KEY)
    caplog.set_level("DEBUG")

    def judge(body: dict[str, Any], before: int) -> Answer:
        return Answer(f"the key is {server_lib.KEY}")

    with server_lib.serving(judge, key=server_lib.KEY) as server:
        found, _ = ask(settings(server.url, key_env="JUDGE_KEY"), tmp_path, requests(2))
        assert found["r0"].text == "the key is ***"  # type: ignore[union-attr]
        monkeypatch.setenv("JUDGE_KEY", "sk-test-of-someone-else")
        with pytest.raises(errors.UserError) as error:
            ask(settings(server.url, key_env="JUDGE_KEY"), tmp_path, requests(3))
    assert "refuses the key in $JUDGE_KEY (401" in str(error.value) and "someone-else" not in str(error.value)
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "sk-test" not in written and "sk-test" not in caplog.text


def test_pictures_are_sent_and_named_by_their_hash(tmp_path: pathlib.Path) -> None:
    pictures = [request_lib.Picture(b"\x89PNG\r\n\x1a\n" + name) for name in (b"a", b"b", b"a")]
    asked = [
        request_lib.Request(str(i), (request_lib.Message("user", ("look", one)),), max_tokens=2)
        for i, one in enumerate(pictures)
    ]
    with server_lib.serving(echo) as server:
        found, _ = ask(settings(server.url, detail="high"), tmp_path, asked)
        bad = request_lib.Request("bad", (request_lib.Message("user", (request_lib.Picture(b"BM"),)),), max_tokens=2)
        failed, _ = ask(settings(server.url), tmp_path, [bad])
    assert len(server.asked) == 2 and len(found) == 3
    sent = json.loads(min(server.asked))
    part = sent["messages"][0]["content"][1]["image_url"]
    assert part["detail"] == "high" and part["url"].startswith("data:image/png;base64,iVBORw0KGgp")
    assert isinstance(failed["bad"], asking.Failure) and failed["bad"].kind == client.REJECTED


BAD = {
    "no address": ({"base_url": ""}, ".base_url='': name the server"),
    "no scheme": ({"base_url": "localhost:8000/v1"}, ".base_url='localhost:8000/v1': name the server"),
    "no port": ({"base_url": "http://a:b/v1"}, ".base_url='http://a:b/v1': name the server"),
    "password": ({"base_url": "http://a:b@c/v1"}, ".base_url holds a password"),
    "key in the address": ({"base_url": "http://c/v1?key=sk-of-mine"}, ".base_url has a ? or #"),
    "key for its name": ({"key_env": "sk-of-mine"}, ".key_env is no name of an environment variable"),
    "no model": ({"model": ""}, ".model is empty"),
    "no price": ({"input_price": -1.0}, "what 'judge' costs is not known"),
    "no calls": ({"max_calls": 0}, ".max_calls=0: nothing may be asked"),
    "no money": ({"max_dollars": 0.0}, ".max_dollars=0: nothing may be asked of a server with a price"),
    "no key": ({"key_env": "JUDGE_KEY"}, ".key_env: the environment variable 'JUDGE_KEY' is not set"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_end_before_anything_is_written(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    changes, words = BAD[name]
    with pytest.raises(errors.UserError) as error:
        ask(settings("http://127.0.0.1:9/v1", **changes), tmp_path / "new", requests(1))
    assert str(error.value).startswith(WHERE) and words in str(error.value) and "sk-of-mine" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_a_key_that_cannot_be_one_is_not_shown(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "two words\nand a line")
    with pytest.raises(errors.UserError) as error:
        ask(settings("http://127.0.0.1:9/v1", key_env="JUDGE_KEY"), tmp_path, requests(1))
    assert "holds what no key has" in str(error.value) and "two" not in str(error.value)


def test_without_the_package_the_extra_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(errors.UserError, match=r"needs the package openai: pip install (-e )?'"):
        ask(settings("http://127.0.0.1:9/v1"), tmp_path, requests(1))


def test_a_torn_line_is_cut_off_and_a_broken_one_named(tmp_path: pathlib.Path) -> None:
    with server_lib.serving(echo) as server:
        ask(settings(server.url, concurrency=1), tmp_path, requests(3))
        path = tmp_path / journal.NAME
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        found, endpoint = ask(settings(server.url), tmp_path, requests(3))
        assert "cut short" in endpoint.notices[0] and "killed" in endpoint.notices[1]
        assert server.asked.total() == 4 and len(found) == 3
        path.write_bytes(b"{}\n" + whole)
        with pytest.raises(errors.UserError, match=r"calls.jsonl:1: not a line of this program's schema 1; delete"):
            ask(settings(server.url), tmp_path, requests(3))
        holding = asking.opened(settings(server.url), tmp_path / "held", where=WHERE)
        with holding, pytest.raises(errors.UserError, match="another process asks there"):
            ask(settings(server.url), tmp_path / "held", requests(1))


CHILD = """
import pathlib, sys
from tests.endpoints import test_asking as t
t.ask(t.settings(sys.argv[1], concurrency=3), pathlib.Path(sys.argv[2]), t.requests(40))
"""


def test_a_file_of_any_length_is_read_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal.limits, "RESULT_BYTES", 2000)
    said = journal.Said("yes", "stop", False, 3, 1, "judge")
    with journal.opened(tmp_path) as kept:
        for n in range(20):
            assert not kept.send(f"k{n}", 0.5, 100, 100.0)
            kept.reply(f"k{n}", said, 0.25)
    path = tmp_path / journal.NAME
    assert path.stat().st_size > 2000
    with journal.opened(tmp_path) as kept:
        assert [kept.said(f"k{n}") for n in range(20)] == [said] * 20
        assert (kept.calls, kept.dollars, kept.lost, kept.notice) == (20, 5.0, 0, "")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"schema"')
    with journal.opened(tmp_path) as kept:
        assert "cut short" in kept.notice and path.read_bytes() == whole
    path.write_bytes(whole + b"x" * 3000)
    too_long = pytest.raises(errors.UserError, match=r"calls\.jsonl:41: a line of 2,000 bytes or more; delete")
    with too_long, journal.opened(tmp_path):
        pass


@pytest.mark.parametrize("after", [0, 1, 7, 20])
def test_killed_and_resumed_without_a_second_paid_call(after: int, tmp_path: pathlib.Path) -> None:
    """The server answers so many and holds the rest; when all replies are read, the process is killed from outside."""
    command = [sys.executable, "-c", CHILD]
    held = True

    def judge(body: dict[str, Any], before: int) -> Answer:
        mine = int(server_lib.last_text(body).split()[1])
        waits = (lambda: time.sleep(60)) if held and mine >= after else (lambda: None)
        return Answer(f"reply {mine}", before=waits)

    with server_lib.serving(judge) as server:
        child = subprocess.Popen([*command, server.url, str(tmp_path)], cwd=source.ROOT, stdout=subprocess.PIPE)
        path, ends = tmp_path / journal.NAME, time.monotonic() + source.PATIENCE
        while time.monotonic() < ends and child.poll() is None:
            lines = path.read_text() if path.exists() else ""
            if lines.count('"replied"') == after and lines.count('"sent"') == after + 3:
                break
            time.sleep(0.01)
        child.kill()
        child.communicate()
        held = False
        found, endpoint = ask(settings(server.url), tmp_path, requests(40))
    assert {one.id: one.text for one in found.values()} == {f"r{i}": f"reply {i}" for i in range(40)}  # type: ignore[union-attr]
    assert endpoint.tally.cached == after and set(server.paid.values()) == {1} and server.paid.total() == 40
    assert "asked again: 3" in endpoint.notices[-1] and endpoint.tally.calls == 40 - after
