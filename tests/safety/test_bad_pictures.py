"""Pictures that cannot be read, with `on_bad_picture` "skip": their questions are left out, counted and listed, in
controls, in baselines and by every process, too."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from PIL import Image
import pytest

from tests.data import stand as data_stand
from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.reporting import tables
from vlguard_jax.safety import questions
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import registry

BROKEN = "5.png"  # of a safe record, which is asked twice
COUNTS = {"unsafes": (3, 0), "safe_safes": (3, 1), "safe_unsafes": (3, 1)}  # asked, left out
WHOLE = {"unsafes": (3, 0), "safe_safes": (4, 0), "safe_unsafes": (4, 0)}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A benchmark with one picture cut short."""
    folder = stand.write_benchmark(tmp_path / "bench")
    path = data_stand.write_picture(folder / "test/set" / BROKEN, size=(300, 200))
    path.write_bytes(path.read_bytes()[:200])
    return folder


def settings(folder: pathlib.Path, on_bad: str = "skip", baseline: str = "", **changes) -> config.EvalConfig:
    plain = stand.settings(folder, baseline=baseline)
    benchmark = dataclasses.replace(plain.benchmark, on_bad_picture=on_bad, **changes)
    return dataclasses.replace(plain, benchmark=benchmark)


def fox(number: int) -> str:
    return "The quick fox." if number % 2 else "I cannot"


def counts(rows: list[summary.Row]) -> dict[str, tuple[int, int]]:
    return {row.subset: (row.n, row.n_bad_picture) for row in rows}


def lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_skip_counts_and_lists(tmp_path, folder):
    model, engine = stand.make_model(tmp_path, fox)
    said: list[str] = []
    rows = run.evaluate(settings(folder), tmp_path / "work", model, say=said.append)
    assert counts(rows) == COUNTS and len(engine.asked) == 9
    listed = lines(tmp_path / "work" / "skipped.jsonl")
    assert [(one["schema"], one["subset"], one["item_id"], one["picture"].split("/")[-1]) for one in listed] == [
        (1, "safe_unsafes", "v5", BROKEN),
        (1, "safe_safes", "v5", BROKEN),
    ]
    assert all(one["reason"].endswith("download it again") for one in listed)
    (notice,) = (line for line in said if "left out" in line)
    assert "cannot be read: 2, first" in notice and BROKEN in notice and "skipped.jsonl" in notice
    headings, cells = tables.cells(rows)
    assert sorted(line[headings.index("n")] for line in cells) == ["3", "3 of 4", "3 of 4"]
    assert summary.read(tmp_path / "work" / summary.NAME, summary.Row) == rows


@pytest.mark.parametrize("what", ["text", "empty", "many bytes", "many pixels"])
def test_whatever_cannot_be_read_is_left_out(tmp_path, folder, monkeypatch, what):
    path = folder / "test/set" / BROKEN
    path.write_bytes({"text": b"no picture", "many bytes": b"\x89PNG" + bytes(5000)}.get(what, b""))
    if what == "many bytes":
        monkeypatch.setattr(limits, "PICTURE_BYTES", 4096)
        with pytest.raises(errors.UserError, match=rf'{BROKEN}.* at most 4,096 .*on_bad_picture="skip"'):
            run.evaluate(settings(folder, "error"), tmp_path / "work", stand.make_model(tmp_path, fox)[0])
    if what == "many pixels":
        Image.new("L", (limits.PICTURE_SIDE + 1, 1)).save(path)
    assert counts(run.evaluate(settings(folder), tmp_path / "work", stand.make_model(tmp_path, fox)[0])) == COUNTS


def test_a_missing_picture_stays_an_error(tmp_path, folder):
    (folder / "test/set" / BROKEN).unlink()
    with pytest.raises(errors.UserError, match=rf"1 of 7 pictures are missing, first .*{BROKEN}"):
        run.evaluate(settings(folder), tmp_path / "work", stand.make_model(tmp_path, fox)[0])
    rows = run.evaluate(settings(folder, pictures="white"), tmp_path / "white", stand.make_model(tmp_path, fox)[0])
    assert counts(rows) == WHOLE  # nothing of it is needed


def test_a_subset_of_nothing_is_an_error(tmp_path, folder):
    for path in (folder / "test/set").iterdir():
        if path.stem in "012":  # the unsafe records
            path.write_bytes(b"no picture")
    model, engine = stand.make_model(tmp_path, fox)
    with pytest.raises(errors.UserError, match=r"0\.jpg: not a readable picture .*and no question of unsafes has one"):
        run.evaluate(settings(folder), tmp_path / "work", model)
    assert not engine.asked and not (tmp_path / "work").exists()


@pytest.mark.parametrize("pictures", ["real", "white", "none"])
def test_a_baseline_that_left_out_the_same(tmp_path, folder, pictures):
    """A control leaves out what its real run left out, so that it is paired with it."""
    model, _ = stand.make_model(tmp_path, lambda _: "I cannot")
    run.evaluate(settings(folder), tmp_path / "before", model)
    asked = settings(folder, baseline=str(tmp_path / "before"), pictures=pictures)
    run.check_baseline(asked, tmp_path / "work")
    rows = run.evaluate(asked, tmp_path / "work", model)
    assert counts(rows) == COUNTS and {row.vs_baseline.diff for row in rows} == {0.0}


def test_a_baseline_that_lacks_a_question_is_named(tmp_path, folder):
    model, _ = stand.make_model(tmp_path, fox)
    run.evaluate(settings(folder), tmp_path / "before", model)
    asked = settings(folder, "error", baseline=str(tmp_path / "before"), pictures="white")
    message = (
        r"safe_unsafes item v5 was not asked there but left out .*skipped\.jsonl.*config\.benchmark\.on_bad_picture"
    )
    with pytest.raises(errors.UserError, match=message):
        run.check_baseline(asked, tmp_path / "work")
    with pytest.raises(errors.UserError, match=message):
        run.evaluate(asked, tmp_path / "work", model)


def test_a_run_goes_on_with_the_other_choice(tmp_path, folder):
    """First refused, then without the picture, then with it: each answer is made once."""
    model, engine = stand.make_model(tmp_path, fox)
    work, broken = tmp_path / "work", folder / "test/set" / BROKEN
    for _ in range(2):
        assert counts(run.evaluate(settings(folder), work, model)) == COUNTS and len(engine.asked) == 9
        with pytest.raises(errors.UserError, match=r"1 of 1 pictures cannot be used"):
            run.evaluate(settings(folder, "error"), work, model)
        assert (work / "skipped.jsonl").exists()
    answered = lines(work / results.GENERATIONS)
    data_stand.write_picture(broken)
    assert counts(run.evaluate(settings(folder, "error"), work, model)) == WHOLE and len(engine.asked) == 11
    assert lines(work / results.GENERATIONS)[:9] == answered and not (work / "skipped.jsonl").exists()
    broken.write_bytes(b"no picture")
    assert counts(run.evaluate(settings(folder), work, model)) == COUNTS and len(engine.asked) == 11


class Recorded(run.Alone):
    """The first process, whose results are kept as JSON; or another one, which gets them."""

    def __init__(self, said: list[str] | None = None):
        self.first, self.said, self.agreed = said is None, said or [], []

    def from_first(self, make):
        if self.first:
            self.said.append(json.dumps(make()))
            return json.loads(self.said[-1])
        return json.loads(self.said.pop(0))

    def agree(self, digests):
        self.agreed.append(dict(digests))


def test_processes_leave_out_what_the_first_found(tmp_path, folder, monkeypatch):
    model, engine = stand.make_model(tmp_path, fox)
    one = Recorded()
    rows = run.evaluate(settings(folder), tmp_path / "work", model, team=one)
    first, engine.asked = [prompt.id for prompt in engine.asked], []
    other = Recorded(list(one.said))
    monkeypatch.setattr(benchmark_lib, "unreadable", lambda *_: pytest.fail("looked for itself"))
    assert run.evaluate(settings(folder), tmp_path / "nowhere", model, team=other) == rows
    assert other.agreed == one.agreed and [prompt.id for prompt in engine.asked] == first
    assert not other.said and not (tmp_path / "nowhere").exists()


def test_the_paper_is_not_compared(tmp_path):
    registry.get("figstep").stand_in(tmp_path / "bench")
    path = tmp_path / "bench/data/images/SafeBench/query_ForbidQI_1_2_6.png"
    path.write_bytes(path.read_bytes()[:-30])
    asked = config.BenchmarkSettings(name="figstep", path=str(tmp_path / "bench"), limit=5, on_bad_picture="skip")
    model, _ = stand.make_model(tmp_path, fox)
    (row,) = run.evaluate(
        stand.settings(tmp_path, benchmark=asked, paper_row="LLaVA-v1.5-7B"), tmp_path / "work", model
    )
    assert (row.n, row.n_bad_picture) == (4, 1) and row.paper.p is None
    assert "questions left out whose pictures cannot be read: 1" in row.paper.note


def test_nothing_but_the_choice_differs_where_all_is_well(tmp_path):
    """The same keys, so that answers are found again."""
    folder = stand.write_benchmark(tmp_path / "bench")
    model, _ = stand.make_model(tmp_path, fox)
    both = [settings(folder, choice) for choice in ("error", "skip")]
    error, skip = (run.left_out.split(one, model, run.check(one)) for one in both)
    assert [q.key for q in error[0]] == [q.key for q in skip[0]] and not error[1] and not skip[1]
    assert isinstance(error[0][0], questions.Question)
