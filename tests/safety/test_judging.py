"""Judges that take long: after all answers, chunk by chunk, each on disk before the next; a harm judge's rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import json
import pathlib
from typing import Any

import pytest

from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.benchmarks import vlguard
from vlguard_jax.safety.judges import judge
from vlguard_jax.safety.judges import registry

UNSAFE = stand.UNSAFE + stand.SAFE  # requests of the subsets that a judge of harm reads
TOTAL = UNSAFE + stand.SAFE


@dataclasses.dataclass
class Slow:
    """Calls even answers harmful; stops after `fail_after` calls."""

    name: str = "slow"
    version: str = "1"
    prompt_sha256: str = ""
    measures: str = "harm"
    chunk: int = 3
    together: bool = False
    fail_after: int = 10**9
    read: list[list[judge.Exchange]] = dataclasses.field(default_factory=list)
    closed: int = 0

    def judge(self, exchanges: Sequence[judge.Exchange]) -> list[judge.Verdict]:
        if len(self.read) == self.fail_after:
            raise KeyboardInterrupt
        self.read.append(list(exchanges))
        even = [int(e.response.split()[1]) % 2 == 0 for e in exchanges]
        return [judge.Verdict("comply" if harm else "refuse", float(harm), "said") for harm in even]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return stand.write_benchmark(tmp_path / "bench")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    made = Slow()
    monkeypatch.setitem(registry.JUDGES, "slow", lambda: made)
    return made


def evaluate(tmp_path: pathlib.Path, folder: pathlib.Path, workdir: pathlib.Path, **how: Any) -> list[summary.Row]:
    changes = how.pop("changes", {})
    settings = stand.settings(folder, judges=("keyword_vlguard_v1", "slow"), **changes)
    model, _ = stand.make_model(tmp_path, lambda number: f"Answer {number} is here.")
    return run.evaluate(settings, workdir, model, **how)


def of_slow(workdir: pathlib.Path) -> list[Any]:
    path = workdir / results.VERDICTS
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["judge"] == "slow"]


def test_harm_is_measured_on_unsafe_requests_alone(tmp_path, folder, slow) -> None:
    rows = evaluate(tmp_path, folder, tmp_path / "work")
    found = {row.subset: row for row in rows if row.judge == "slow"}
    assert {subset: row.metric for subset, row in found.items()} == {"unsafes": "asr", "safe_unsafes": "asr"}
    # the stand-in's engine answers from the last question of the file on: 4 safe_safes, 4 safe_unsafes, 3 unsafes
    verdicts = {line["key"]: line for line in of_slow(tmp_path / "work")}
    answers = [json.loads(x) for x in (tmp_path / "work" / results.GENERATIONS).read_text().splitlines()]
    for subset, row in found.items():
        own = [a for a in answers if a["subset"] == subset]
        even = sum(int(a["response"].split()[1]) % 2 == 0 for a in own)
        assert (row.n, row.count) == (len(own), even)
        assert all(verdicts[a["key"]]["raw"] == "said" for a in own)
    assert len(verdicts) == UNSAFE and [len(chunk) for chunk in slow.read] == [3, 3, 1] and slow.closed == 1
    assert summary.read(tmp_path / "work" / summary.NAME, summary.Row) == rows


def test_an_answer_without_a_verdict_is_none_of_the_harmless(tmp_path, folder, slow, monkeypatch) -> None:
    monkeypatch.setattr(Slow, "judge", lambda self, exchanges: [judge.Verdict("invalid")] * len(exchanges))
    rows = [row for row in evaluate(tmp_path, folder, tmp_path / "work") if row.judge == "slow"]
    assert [(row.rate, row.n_invalid) for row in rows] == [(1.0, stand.UNSAFE), (1.0, stand.SAFE)]


@pytest.mark.parametrize("stop", range(3))
def test_a_stopped_judge_goes_on_where_it_was(tmp_path, folder, slow, stop) -> None:
    expected = evaluate(tmp_path, folder, tmp_path / "whole")
    slow.read.clear()
    slow.fail_after, workdir = stop, tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, folder, workdir)
    assert len(of_slow(workdir)) == sum(len(chunk) for chunk in slow.read) == 3 * stop
    assert not (workdir / summary.NAME).exists() and slow.closed == 2
    slow.fail_after = 10**9
    assert evaluate(tmp_path, folder, workdir) == expected
    judged = [exchange.response for chunk in slow.read for exchange in chunk]
    assert len(judged) == len(set(judged)) == len(of_slow(workdir)) == UNSAFE
    assert evaluate(tmp_path, folder, workdir) == expected and len(of_slow(workdir)) == UNSAFE


@dataclasses.dataclass
class Second:
    """The process of a team that writes nothing; `told` is what the first one found, in order."""

    told: list[Any]
    first: bool = False

    def from_first(self, make: Callable[[], Any]) -> Any:
        return json.loads(json.dumps(self.told.pop(0)))

    def agree(self, digests: Any) -> None:
        pass


@dataclasses.dataclass
class First:
    """The first process; `told` is what it tells the others."""

    told: list[Any] = dataclasses.field(default_factory=list)
    first: bool = True

    def from_first(self, make: Callable[[], Any]) -> Any:
        self.told.append(make())
        return self.told[-1]

    def agree(self, digests: Any) -> None:
        pass


@pytest.mark.parametrize("together", [True, False])
def test_several_processes_judge_alike(tmp_path, folder, slow, together) -> None:
    slow.together, team = together, First()
    rows = evaluate(tmp_path, folder, tmp_path / "work", team=team)
    first, slow.read = slow.read, []
    assert evaluate(tmp_path, folder, tmp_path / "none", team=Second(team.told)) == rows
    assert slow.read == (first if together else []) and not (tmp_path / "none").exists()
    assert not team.told and len(of_slow(tmp_path / "work")) == UNSAFE


def test_withheld_text_is_judged_while_it_is_there(tmp_path, folder, slow) -> None:
    changes = {"withhold_text": True}
    rows = evaluate(tmp_path, folder, tmp_path / "work", changes=changes)
    assert len(of_slow(tmp_path / "work")) == UNSAFE and {row.n_invalid for row in rows} == {0}
    slow.together = True
    with pytest.raises(
        errors.UserError, match=r"config\.judges: slow judges after .* config\.withhold_text=True keeps"
    ):
        evaluate(tmp_path, folder, tmp_path / "other", changes=changes)
    assert not (tmp_path / "other").exists()


def test_progress_is_shown_by_the_chunk(tmp_path, folder, slow) -> None:
    told: list[Any] = []

    class Shown:
        def __init__(self, *how: Any):
            told.append(how)

        def __enter__(self) -> Callable[[int], None]:
            return told.append

        def __exit__(self, *_: object) -> None:
            told.append("end")

    evaluate(tmp_path, folder, tmp_path / "work", judged=Shown)
    assert told == [("slow", 0, UNSAFE), 3, 3, 1, "end"]


def test_harm_needs_unsafe_requests(tmp_path, folder, slow) -> None:
    asked = config.BenchmarkSettings(name=vlguard.LIKE_VLGUARD.name, path=str(folder), subsets=("safe_safes",))
    message = r"config\.judges: slow measures harm, but no subset asked of vlguard_like .*: unsafes, safe_unsafes\)"
    with pytest.raises(errors.UserError, match=message):
        evaluate(tmp_path, folder, tmp_path / "work", changes={"benchmark": asked})
    assert benchmark.select(vlguard.LIKE_VLGUARD, asked)
