"""Runs are found wherever they lie below a folder, and what cannot be read is named."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.reporting import stand
from vlguard_jax import errors
from vlguard_jax.reporting import runs


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    benchmark = stand.write_benchmark(tmp_path / "world", records=2)
    stand.train(tmp_path / "a" / "fox")
    stand.evaluate(tmp_path / "a" / "fox" / "eval", benchmark, "fox", stand.answers_all)
    stand.train(tmp_path / "b" / "fox")
    return tmp_path


def test_finds_all_and_names_them_apart(folder):
    found = runs.find([folder])
    assert [t.name for t in found.trainings] == ["a/fox", "b/fox"]
    (evaluation,) = found.evaluations
    assert (
        evaluation.model == "fox" and len(evaluation.answers) == 6 and {r.pictures for r in evaluation.rows} == {"real"}
    )
    assert not found.notices
    assert [t.name for t in runs.find([folder / "b", folder / "a"]).trainings] == ["b/fox", "a/fox"]
    again = runs.find([folder / "a", folder])
    assert len(again.evaluations) == 1 and len(again.trainings) == 2


def test_order_is_by_time_within_a_folder(folder):
    first = folder / "z"
    stand.evaluate(first, folder / "world", "old", stand.answers_all)
    path = first / "generations.jsonl"
    lines = [json.loads(line) | {"time": "2000-01-01T00:00:00+00:00"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [e.model for e in runs.find([folder]).evaluations] == ["old", "fox"]


def test_unfinished_evaluations_are_left_out_and_told(folder):
    stand.evaluate(folder / "half", folder / "world", "half", stand.answers_all)
    (folder / "half" / "summary.json").unlink()
    found = runs.find([folder])
    assert [e.model for e in found.evaluations] == ["fox"] and "half" in found.notices[0]


def test_a_torn_last_line_of_metrics_is_left_out(folder):
    with (folder / "b" / "fox" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')
    assert [len(t.metrics) for t in runs.find([folder]).trainings] == [40, 40]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a/fox/metrics.jsonl", "{}\n", "not a metrics line of train: restore"),
        ("a/fox/config.json", "{", r"broken JSON at column 2: [^;]*; restore the file or leave its folder out$"),
        ("a/fox/eval/summary.json", "{", "not a list of result rows"),
        ("a/fox/eval/summary.json", "[]", "no rows"),
        ("a/fox/eval/summary.json", '[{"schema": 3}]', "row 1: the field 'model' is missing; run evaluate again"),
        ("a/fox/eval/summary.json", '[{"model": "fox"}]', "schema None, this program reads and writes 3"),
        ("a/fox/eval/verdicts.jsonl", "{}\n", "not a result line"),
    ],
)
def test_broken_files_are_named(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(errors.UserError, match=message) as e:
        runs.find([folder])
    assert file in str(e.value)


def test_settings_of_another_version_are_named(folder):
    path = folder / "a" / "fox" / "eval" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    with pytest.raises(errors.UserError, match=r"config\.json: config\.colour is not a setting"):
        runs.find([folder])


def test_no_run_and_no_folder(tmp_path):
    with pytest.raises(errors.UserError, match="no finished run below"):
        runs.find([tmp_path])
    with pytest.raises(errors.UserError, match="no such folder"):
        runs.find([tmp_path / "x"])


def test_unique_names():
    paths = [pathlib.Path(p) for p in ("/a/x/eval", "/a/y/eval", "/b/x/eval")]
    assert list(runs.unique_names(paths).values()) == ["a/x/eval", "a/y/eval", "b/x/eval"]
    assert runs.unique_names([]) == {}
