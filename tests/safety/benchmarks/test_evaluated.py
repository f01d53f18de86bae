"""Benchmarks through a whole evaluation: what is counted of each subset, how many, and that stand-ins say so."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from tests.safety import stand
from vlguard_jax import config
from vlguard_jax.safety import paper
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import registry
from vlguard_jax.safety.benchmarks import stand_ins

ROW = "LLaVA-v1.5-7B"


def evaluated(
    tmp_path: pathlib.Path, name: str, answer: str, judge: str = "keyword_vlguard_v1", **changes
) -> list[summary.Row]:
    registry.get(name).stand_in(tmp_path / name)
    model, _ = stand.make_model(tmp_path, lambda number: answer)
    asked = config.BenchmarkSettings(name=name, path=str(tmp_path / name), **changes)
    settings = stand.settings(tmp_path, benchmark=asked, judges=(judge,), paper_row=ROW)
    return run.evaluate(settings, tmp_path / "work", model)


def counted(rows: list[summary.Row]) -> dict[str, tuple[str, int, int, str]]:
    assert all(row.stand_in for row in rows)
    return {row.subset: (row.metric, row.count, row.n, row.pictures) for row in rows}


def test_xstest_refused(tmp_path):
    rows = evaluated(tmp_path, "xstest", "i am sorry")
    assert counted(rows) == {
        "xstest_safe": ("refusal_rate", 250, 250, "text"),
        "xstest_unsafe": ("asr", 0, 200, "text"),
    }
    for row in rows:
        assert row.paper.note.startswith("questions or pictures are stand-ins; ") and row.paper.reproduced is None
    lines = [json.loads(line) for line in (tmp_path / "work" / results.GENERATIONS).read_text().splitlines()]
    assert len(lines) == 450 and all(line["stand_in"] for line in lines)


def test_figstep_answered(tmp_path):
    """Of the first pictures; the table says that it were the first."""
    (row,) = evaluated(tmp_path, "figstep", "the quick fox.", limit=20)
    assert counted([row]) == {"figstep": ("asr", 20, 20, "real")} and row.first_n == 20
    assert [(rate.category, rate.n) for rate in row.by_category] == [("Topic 1", 20)]


@pytest.mark.parametrize(("answer", "count", "invalid"), [("B.", 42, 0), ("fox", 0, 167)])
def test_siuo_by_the_letter(tmp_path, answer, count, invalid):
    """42 of the 167 stand-ins have B as their right option."""
    (row,) = evaluated(tmp_path, "siuo_mcq", answer, "choice_v1")
    assert counted([row]) == {"siuo_mcq": ("accuracy", count, 167, "real")}
    assert (row.n_invalid, row.paper) == (invalid, None)


def test_a_benchmark_that_is_no_stand_in_is_compared(tmp_path, monkeypatch):
    """The same questions without the mark count as the benchmark's; the test itself takes seconds for each row."""
    compared = []
    monkeypatch.setattr(paper.statistics, "two_sample_p", lambda *counts: compared.append(counts) or 0.5)
    registry.get("advbench").stand_in(tmp_path / "advbench")
    file = tmp_path / "advbench" / "harmful_behaviors.csv"
    file.write_text(file.read_text().replace(stand_ins.MARK, "Please"))
    model, _ = stand.make_model(tmp_path, lambda number: "i am sorry")
    asked = config.BenchmarkSettings(name="advbench", path=str(file))
    settings = stand.settings(tmp_path, benchmark=asked, paper_row=ROW)
    settings = dataclasses.replace(settings, decode=config.DecodeSettings(max_new_tokens=256, batch_size=16))
    rows = {row.subset: row for row in run.evaluate(settings, tmp_path / "work", model)}
    plain, suffix, start = rows.values()
    assert list(rows) == ["advbench_vanilla", "advbench_suffix", "advbench_suffix_start"]
    assert not plain.stand_in and (plain.n, plain.count) == (520, 0)
    # Table 2: 6.45 % of 520 is no count, 78.27 % are 407
    assert plain.paper.note.startswith("impossible") and (suffix.paper.count, suffix.paper.reproduced) == (407, True)
    assert compared == [(0, 520, 407, 520)]
    assert start.paper is None  # the paper has one suffix column
