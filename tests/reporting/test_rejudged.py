"""Finished evaluations under another judge: the rows that evaluate itself would write."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import pytest

from tests.reporting import stand
from vlguard_jax import errors
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import rejudged
from vlguard_jax.reporting import runs
from vlguard_jax.safety import results
from vlguard_jax.safety.judges import exact
from vlguard_jax.safety.judges import keyword
from vlguard_jax.safety.judges import repaired


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Every third unsafe request is refused as the list does not know, every third as neither does."""
    top = tmp_path_factory.mktemp("runs")
    world = stand.write_benchmark(top / "world", records=6, side=4)

    def rule(prompt: str) -> str:
        if "Ask safe" in prompt:
            return stand.answers_all(prompt)
        return ("I must decline.", "", "Yes.")[sum(map(ord, prompt)) % 3]

    return stand.evaluate(top / "eval", world, "fox", rule)


def evaluation(folder: pathlib.Path) -> runs.Evaluation:
    (found,) = runs.find([folder]).evaluations
    return found


def test_rows_follow_from_the_answers(work: pathlib.Path) -> None:
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    old = evaluation(work)
    new = rejudged.rejudge(old, [repaired.RepairedKeywords(), keyword.VlguardKeywords()])
    assert new.rows[: len(old.rows)] == old.rows
    more = {row.subset: row for row in new.rows[len(old.rows) :]}
    assert {row.judge for row in more.values()} == {"keyword_repaired"} and len(more) == 3
    for subset in ("unsafes", "safe_unsafes"):
        texts = [line.response for line in old.answers if line.subset == subset]
        refused, empty = sum("decline" in text for text in texts), sum(not text.strip() for text in texts)
        row = more[subset]
        assert refused and empty and (row.n, row.count, row.n_invalid) == (6, 6 - refused, empty)
        assert sum(c.count for c in row.by_category if c.subcategory is None) in (0, row.count)
    assert len(new.verdicts) == len(old.verdicts) + len(old.answers)
    assert len(grid.arrange([new]).columns) == len(grid.arrange([old]).columns) + 3
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before


def test_the_same_as_the_judge_that_was_there(work: pathlib.Path) -> None:
    old = evaluation(work)
    without = dataclasses.replace(old, rows=tuple(r for r in old.rows if r.metric == "accuracy"), verdicts=())
    rows = {row.subset: row for row in old.rows if row.judge == "keyword_vlguard_v1"}
    only = dataclasses.replace(old, rows=tuple(dataclasses.replace(row, judge="other") for row in rows.values()))
    again = rejudged.rejudge(only, [keyword.VlguardKeywords()])
    assert {row.subset: row for row in again.rows if row.judge == "keyword_vlguard_v1"} == rows
    assert rejudged.rejudge(without, [keyword.VlguardKeywords()]).rows == without.rows  # nothing to judge


def test_what_cannot_be_judged(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = evaluation(work)
    with pytest.raises(errors.UserError, match=r"exact_match_v1 compares with expected answers"):
        rejudged.rejudge(found, [exact.ExactMatch()])
    short = dataclasses.replace(found, answers=found.answers[1:])
    with pytest.raises(
        errors.UserError,
        match=r"not the 6 answers to unsafes that summary\.json counts; name keyword_repaired in config\.judges",
    ):
        rejudged.rejudge(short, [repaired.RepairedKeywords()])
    withheld = tuple(dataclasses.replace(line, withheld=True) for line in found.answers)
    with pytest.raises(errors.UserError, match="the text of 6 answers to unsafes was withheld"):
        rejudged.rejudge(dataclasses.replace(found, answers=withheld), [repaired.RepairedKeywords()])


def test_verdicts_of_other_answers(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(work, tmp_path / "eval")
    path = tmp_path / "eval" / results.VERDICTS
    key = evaluation(work).answers[0].key
    path.write_text(path.read_text().replace(key, "0" * len(key)))
    with pytest.raises(errors.UserError, match=r"verdicts\.jsonl: .* verdicts? .*generations\.jsonl"):
        runs.find([tmp_path / "eval"])
