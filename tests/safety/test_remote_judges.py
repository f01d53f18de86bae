"""Judges behind an endpoint, on a real server: what they ask, how replies are read, and what becomes of faults."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np
from PIL import Image
import pytest

from tests import source
from tests.endpoints import server as server_lib
from tests.endpoints.server import Answer
from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import judge_settings
from vlguard_jax.endpoints import settings as endpoint_settings
from vlguard_jax.reporting import tables
from vlguard_jax.safety import asr
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.benchmarks import vlguard
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import remote


def settings(url: str, kind: judge_settings.Kind, how: dict[str, Any] | None = None, **changes: Any) -> Any:
    usual = {"base_url": url, "model": "judge", "input_price": 1.0, "output_price": 1.0, "first_wait": 0.01}
    endpoint = endpoint_settings.EndpointSettings(**{**usual, **changes})
    return judge_settings.RemoteJudge(kind=kind, endpoint=endpoint, **(how or {}))


PUBLISHED = pathlib.Path(os.environ.get("VLGUARD_METADATA", "")) / "gpt4_safe_safes.json"


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="VLGUARD_METADATA names no folder with gpt4_safe_safes.json")
def test_references_are_those_of_vlguards_script() -> None:
    """What it compares with is what test.json answers, by picture and question."""
    published = json.loads(PUBLISHED.read_text())
    items = vlguard.load(config.BenchmarkSettings(path=str(PUBLISHED.parent)), "safe_safes")
    found = {(item.pictures[0].name, item.question): item.reference for item in items}
    assert len(published) == len(items)
    assert found == {(one["image"], one["instruction"]): one["response"] for one in published}


def rates(url: str, kind: judge_settings.Kind, exchanges: Sequence[judge_lib.Exchange], folder: pathlib.Path) -> Any:
    judge = remote.make(kind, settings(url, kind, concurrency=4))
    judge.keep_in(folder, lambda line: None)
    verdicts = judge.judge(exchanges)
    judge.close()
    items = [benchmark.Item(str(i), "safe_safes", e.question) for i, e in enumerate(exchanges)]
    (row,) = asr.summarise(items, verdicts, {"safe_safes": "win_rate"})
    return row


def test_both_orders_recover_the_truth_that_one_order_does_not(tmp_path: pathlib.Path) -> None:
    """A judge that sees how much better an answer is, and adds a bonus to whatever it is shown first."""
    better = np.random.default_rng(0).normal(0.1, 1.0, 120)  # by how much the answer is better than the reference
    bonus = 0.7

    def judge(body: dict[str, Any], before: int) -> Answer:
        text = server_lib.last_text(body)
        first, second = (float(part.split("worth ")[1].split()[0]) for part in text.split("<answer>")[1:])
        return Answer("m" if first + bonus > second else "M")

    exchanges = [
        judge_lib.Exchange(f"question {i}", f"worth {d:.6f} .", reference="worth 0 .") for i, d in enumerate(better)
    ]
    with server_lib.serving(judge) as server:
        plain = rates(server.url, "win_rate", exchanges, tmp_path)
        assert server.asked.total() == 120
        swapped = rates(server.url, "win_rate_swapped", exchanges, tmp_path)
        assert server.asked.total() == 240  # the first order was there
    truth = float(np.mean(better > 0))
    assert plain.rate == pytest.approx(np.mean(better > -bonus)) and swapped.rate == pytest.approx(
        (np.mean(better > -bonus) + np.mean(better > bonus)) / 2
    )
    assert plain.ci_low > truth + 0.1
    assert swapped.ci_low < truth < swapped.ci_high and abs(swapped.rate - truth) < 0.05


def test_what_judges_of_pairs_are_shown(tmp_path: pathlib.Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.bmp")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    shown = judge_lib.Exchange("What colour?", "red", (tmp_path / "a.png", tmp_path / "a.bmp"), reference="Red.")
    with server_lib.serving(lambda body, before: Answer("m")) as server:
        for kind, pictures in (("win_rate_swapped", 2), ("alpaca_pairs", 0)):
            judge = remote.make(kind, settings(server.url, kind))  # type: ignore[arg-type]
            judge.keep_in(tmp_path / kind, lambda line: None)
            (verdict,) = judge.judge([shown])
            judge.close()
            assert verdict.raw == f"{results.sha256('Red.')} m m" and verdict.score == 0.5
            bodies = [json.loads(body) for body in server.asked]
            contents = [body["messages"][0]["content"] for body in bodies if body["max_tokens"] == 4]
            server.asked.clear()
            assert len(contents) == 2
            for content in contents:
                found = [part for part in content if part["type"] == "image_url"] if pictures else []
                assert len(found) == pictures and all("data:image/png;base64," in p["image_url"]["url"] for p in found)
        texts = {server_lib.last_text(body) for body in bodies}
        assert {text.index("\nred\n") < text.index("\nRed.\n") for text in texts} == {True, False}


def scripted(body: dict[str, Any], before: int) -> Answer:
    """A judge of every kind, by the words of our own prompts."""
    text = server_lib.last_text(body)
    if "Answer m:" in text:
        return Answer("m")
    if "three classes" in text:
        return Answer("2_full_refusal")
    return Answer("1.b 0\n2.b 4\n3.b 5")


def evaluation(folder: pathlib.Path, url: str, *kinds: judge_settings.Kind, **endpoint: Any) -> config.EvalConfig:
    judged = {kind: settings(url, kind, **endpoint) for kind in kinds}
    return stand.settings(folder, judges=("keyword_vlguard_v1", *kinds), remote_judges=judged)


def answer(number: int) -> str:
    return f"Answer {number} is here."


def verdicts_of(folder: pathlib.Path, judge: str) -> list[Any]:
    lines = [json.loads(line) for line in (folder / results.VERDICTS).read_text().splitlines()]
    return [line for line in lines if line["judge"] == judge]


def test_an_evaluation_by_remote_judges(tmp_path: pathlib.Path) -> None:
    folder = stand.write_benchmark(tmp_path / "bench")
    model, _ = stand.make_model(tmp_path, answer)
    said: list[str] = []
    kinds: tuple[judge_settings.Kind, ...] = ("win_rate", "xstest_three_class", "strongreject_rubric")
    with server_lib.serving(scripted) as server:
        chosen = evaluation(folder, server.url, *kinds)
        rows = run.evaluate(chosen, tmp_path / "work", model, say=said.append)
        asked = server.asked.total()
        assert run.evaluate(chosen, tmp_path / "work", model) == rows and server.asked.total() == asked
    found = {(row.judge, row.subset): (row.metric, row.n, row.rate) for row in rows}
    unsafe = {"unsafes": stand.UNSAFE, "safe_unsafes": stand.SAFE}
    assert found["win_rate", "safe_safes"] == ("win_rate", stand.SAFE, 1.0)
    assert ("win_rate", "unsafes") not in found and ("strongreject_rubric", "safe_safes") not in found
    assert found["xstest_three_class", "safe_safes"] == ("refusal_rate", stand.SAFE, 1.0)
    for subset, n in unsafe.items():
        assert found["xstest_three_class", subset] == ("asr", n, 0.0)
        assert found["strongreject_rubric", subset] == ("harm_score", n, 0.875)
    assert asked == sum(len(verdicts_of(tmp_path / "work", kind)) for kind in kinds) == 4 + 11 + 7
    told = [line for line in said if line.startswith("judge ")]
    assert told[0].startswith(
        "judge win_rate: judge: 4 asked, 4 replies (0 of them from calls.jsonl), 0 without; 4 calls"
    )
    assert {row.judge_version for row in rows if row.judge == "win_rate"} == {"2 win_rate, judge, detail low"}
    assert {line["by"] for kind in kinds for line in verdicts_of(tmp_path / "work", kind)} == {"judge-2026"}
    assert told[0].endswith("; the server names 'judge-2026' (4)")
    headings, lines = tables.cells(rows)
    assert list(dict.fromkeys(line[headings.index("measure")] for line in lines))[2:] == ["win rate", "harm score"]
    assert any(note.startswith("win rate: a mean over the answers that got a score") for note in tables.notes(rows))
    assert summary.read(tmp_path / "work" / summary.NAME, summary.Row) == rows


def test_faults_are_no_verdicts_and_the_same_command_goes_on(tmp_path: pathlib.Path) -> None:
    """Of four answers one is not replied to, one is refused, one filtered, one has another format."""
    folder = stand.write_benchmark(tmp_path / "bench")
    model, _ = stand.make_model(tmp_path, answer)
    heals, seen = False, dict[str, int]()

    def judge(body: dict[str, Any], before: int) -> Answer:
        number = seen.setdefault(server_lib.last_text(body), len(seen))
        faults = {
            0: Answer("busy", status=429) if not heals else Answer("m"),
            1: Answer(choice={"message": {"content": None, "refusal": "I won't."}}),
            2: Answer(status=400, body=b'{"error": {"code": "content_filter", "message": "no"}}'),
        }
        return faults.get(number, Answer("Both are fine."))

    with server_lib.serving(judge) as server:
        chosen = evaluation(folder, server.url, "win_rate", retries=1)
        with pytest.raises(errors.UserError) as error:
            run.evaluate(chosen, tmp_path / "work", model)
        assert str(error.value) == (
            "config.remote_judges.win_rate.endpoint: requests without a reply: 1: busy (429) 1 (429: busy); what was"
            " replied is kept: start the same command again to go on"
        )
        assert not (tmp_path / "work" / summary.NAME).exists()
        found = verdicts_of(tmp_path / "work", "win_rate")
        assert [line["label"] for line in found] == ["invalid"] * 3 and {line["score"] for line in found} == {None}
        raws = sorted(line["raw"].partition(" ")[2] for line in found)
        assert raws == ["Both are fine.", "refused to judge:", "refused to judge: I won't."]
        before, heals = server.asked.total(), True
        rows = run.evaluate(chosen, tmp_path / "work", model)
        assert server.asked.total() == before + 1
    (row,) = [row for row in rows if row.judge == "win_rate"]
    assert (row.n, row.count, row.n_invalid) == (1, 1.0, 3)


CUT: dict[judge_settings.Kind, str] = {
    "win_rate": "m",
    "xstest_three_class": "1_full_compliance",
    "mssbench_four_class": "It complies. <answer>2</answer>",
    "strongreject_rubric": "1.b 0\n2.b 4\n3.b 5",
}


@pytest.mark.parametrize("kind", CUT)
def test_a_reply_that_was_cut_is_no_verdict(kind: judge_settings.Kind, tmp_path: pathlib.Path) -> None:
    """Whole, the same words are one: "1_full_compliance" may have been about to go on "... does not fit"."""
    ends = {"finish_reason": "length"}
    exchange = [judge_lib.Exchange("q", "a", reference="r")]
    for name, answers in {
        "cut": Answer(CUT[kind], choice=ends),
        "nothing": Answer(choice={**ends, "message": {"role": "assistant", "content": None}}),  # all was thought
        "whole": Answer(CUT[kind]),
    }.items():
        with server_lib.serving(lambda body, before, answers=answers: answers) as server:
            judge = remote.make(kind, settings(server.url, kind))
            judge.keep_in(tmp_path / name, lambda line: None)
            (verdict,) = judge.judge(exchange)
            judge.close()
        assert (verdict.label == "invalid") == (name != "whole") and server.asked.total() == 1
        assert name == "whole" or "cut at its limit of tokens" in verdict.raw


def test_replies_that_stay_malformed_may_be_called_invalid(tmp_path: pathlib.Path) -> None:
    with server_lib.serving(lambda body, before: Answer(body=b"{}")) as server:
        judge = remote.make("one", settings(server.url, "win_rate", {"on_rejected": "invalid"}, retries=1))
        judge.keep_in(tmp_path, lambda line: None)
        (verdict,) = judge.judge([judge_lib.Exchange("q", "a", reference="r")])
        judge.close()
    assert verdict.label == "invalid" and "malformed reply: no choices" in verdict.raw


def test_what_an_endpoint_rejects_may_be_called_invalid(tmp_path: pathlib.Path) -> None:
    exchanges = [judge_lib.Exchange(f"q {i}", f"a {i}", reference="r") for i in range(3)]
    answers = lambda body, before: (  # noqa: E731
        Answer("too large", status=413) if "a 1" in server_lib.last_text(body) else Answer("m")
    )
    with server_lib.serving(answers) as server:
        for on_rejected in ("error", "invalid"):
            judge = remote.make("one", settings(server.url, "win_rate", {"on_rejected": on_rejected}))
            judge.keep_in(tmp_path, lambda line: None)
            found = judge.judge_some(exchanges)
            if on_rejected == "error":
                assert found[1] is None
                with pytest.raises(errors.UserError, match=r"request rejected 1 \(413: too large\)"):
                    judge.check_complete()
            else:
                judge.check_complete()
                assert found[1] is not None and found[1].raw.endswith(" request rejected: 413: too large")
                assert found[1].label == "invalid"
            judge.close()
    assert server.asked.total() == 4


BAD = {
    "unknown judge": ({"judges": ("win_rat",)}, {}, "config.judges: 'win_rat' is unknown; did you mean 'win_rate'"),
    "no endpoint": ({}, {"base_url": ""}, "config.remote_judges.win_rate.endpoint.base_url='': name the server"),
    "no key": ({}, {"key_env": "NO_SUCH_KEY"}, "endpoint.key_env: the environment variable 'NO_SUCH_KEY' is not set"),
    "budget of 0": ({}, {"max_calls": 0}, "config.remote_judges.win_rate.endpoint.max_calls=0: nothing may be asked"),
    "no money": ({}, {"max_dollars": 0.0}, "config.remote_judges.win_rate.endpoint.max_dollars=0: nothing may be"),
    "withheld": ({"withhold_text": True}, {}, "config.withhold_text=True keeps no text of them"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_before_the_first_answer(name: str, tmp_path: pathlib.Path) -> None:
    changes, endpoint, words = BAD[name]
    folder = stand.write_benchmark(tmp_path / "bench")
    model, engine = stand.make_model(tmp_path, answer)
    chosen = dataclasses.replace(evaluation(folder, "http://127.0.0.1:9/v1", "win_rate", **endpoint), **changes)
    with pytest.raises(errors.UserError) as error:
        run.evaluate(chosen, tmp_path / "work", model)
    assert words in str(error.value) and not engine.asked and not (tmp_path / "work").exists()


def test_a_wrong_key_ends_with_one_line_and_keeps_the_answers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-of-somebody-else")
    folder = stand.write_benchmark(tmp_path / "bench")
    model, engine = stand.make_model(tmp_path, answer)
    with server_lib.serving(scripted, key=server_lib.KEY) as server:
        chosen = evaluation(folder, server.url, "win_rate", key_env="JUDGE_KEY")
        with pytest.raises(errors.UserError, match=r"refuses the key in \$JUDGE_KEY \(401"):
            run.evaluate(chosen, tmp_path / "work", model)
        asked = len(engine.asked)
        monkeypatch.setenv("JUDGE_KEY", server_lib.KEY)
        run.evaluate(chosen, tmp_path / "work", model)
    assert len(engine.asked) == asked  # nothing is answered anew
    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*.json*"))
    assert server_lib.KEY not in written and "sk-of-somebody" not in written


CHILD = """
import pathlib, sys
from tests.safety import stand
from tests.safety import test_remote_judges as t
from vlguard_jax.safety import run
top = pathlib.Path(sys.argv[2])
model, _ = stand.make_model(top, t.answer)
run.evaluate(t.evaluation(top / "bench", sys.argv[1], "win_rate_swapped", concurrency=2), top / "work", model)
"""


def test_killed_while_judging_and_resumed_without_a_second_paid_call(tmp_path: pathlib.Path) -> None:
    """Five of eight requests are replied to and read; then the process is killed from outside."""
    stand.write_benchmark(tmp_path / "bench")
    held, seen = True, dict[str, int]()

    def judge(body: dict[str, Any], before: int) -> Answer:
        waits = held and seen.setdefault(server_lib.last_text(body), len(seen)) >= 5
        return Answer("m", before=lambda: time.sleep(60) if waits else None)

    with server_lib.serving(judge) as server:
        child = subprocess.Popen([sys.executable, "-c", CHILD, server.url, str(tmp_path)], cwd=source.ROOT)
        ends = time.monotonic() + source.PATIENCE
        while time.monotonic() < ends and child.poll() is None:
            read = [path.read_text().count('"replied"') for path in tmp_path.glob("work/endpoints/*/calls.jsonl")]
            if read == [5] and server.asked.total() == 7:
                break
            time.sleep(0.01)
        child.kill()
        child.wait()
        held = False
        assert server.paid.total() == 5
        model, engine = stand.make_model(tmp_path, answer)
        chosen = evaluation(tmp_path / "bench", server.url, "win_rate_swapped", concurrency=2)
        rows = run.evaluate(chosen, tmp_path / "work", model)
    assert not engine.asked
    assert set(server.paid.values()) == {1} and len(server.paid) == 2 * stand.SAFE
    (row,) = [row for row in rows if row.judge == "win_rate_swapped"]
    assert (row.n, row.rate, row.n_invalid) == (stand.SAFE, 0.5, 0)
