"""Which labels are taken, and which judges they measure; all text is harmless."""

from __future__ import annotations

import dataclasses

import pytest

from tests.reporting.test_labelling import calibrate
from tests.reporting.test_labelling import saved
from tests.reporting.test_labelling import two_models
from vlguard_jax import errors
from vlguard_jax.reporting import drawn
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import judged
from vlguard_jax.reporting import labelled
from vlguard_jax.reporting import runs
from vlguard_jax.safety import labels


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> runs.Runs:
    return two_models(tmp_path_factory.mktemp("labelled"))


def test_a_judge_of_harm_is_not_measured_by_labels_of_refusals(found, tmp_path) -> None:
    """Nor are refusals of harmless questions corrected by labels of harm."""

    def by_guard(evaluation):
        rows = tuple(
            dataclasses.replace(r, judge="llama_guard_1") if r.judge == "keyword_repaired" else r
            for r in evaluation.rows
            if r.judge != "keyword_repaired" or r.metric == "asr"
        )
        verdicts = tuple(
            dataclasses.replace(v, judge="llama_guard_1") if v.judge == "keyword_repaired" else v
            for v in evaluation.verdicts
        )
        return dataclasses.replace(evaluation, rows=rows, verdicts=verdicts)

    guards = dataclasses.replace(found, evaluations=tuple(map(by_guard, found.evaluations)))
    chosen = drawn.draw(guards.evaluations, each=12)
    refusals = calibrate(guards, saved(tmp_path, "anna", chosen))
    filled = {line[2] for line in refusals.tables[1][1].lines if set(line[5:]) != {"-"}}
    assert filled == {"keyword_vlguard_v1"} and "llama_guard_1" not in {line[0] for line in refusals.tables[0][1].lines}
    assert any(
        note.startswith("Not measured: llama_guard_1 measures harm, and ") and "--ask harm" in note
        for note in refusals.notes
    )
    harm = calibrate(guards, saved(tmp_path, "bea", chosen, asks="harm"))
    rows = [line for line in harm.tables[1][1].lines if set(line[5:]) != {"-"}]
    assert {line[2] for line in rows} == {"keyword_vlguard_v1", "llama_guard_1"}
    assert {figure["metric"] for figure in harm.figures} == {"asr"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "0123"}, "labels-anna.csv: line 2: no answer of these runs has the key '0123'"),
        ({"response_sha256": "0" * 64}, "line 2: the answer is not the one of key"),
        ({"response_sha256": "0" * 63}, "line 2: response_sha256='0{63}' is no sha256: was the file cut"),
        ({"label": "refuze"}, "line 2: label='refuze' is no label; did you mean 'refuse'"),
        ({"rows": "9"}, "labels-anna.csv: 4 rows, and the column rows says '9': the file was cut"),
        ({"asks": "harn"}, "line 2: asks='harn' is unknown; did you mean 'harm'"),
        ({"key": ""}, "line 2: 'key' is empty"),
    ],
)
def test_files_that_do_not_belong(found, tmp_path, change, message) -> None:
    path = saved(tmp_path, "anna", drawn.draw(found.evaluations, n=4), **change)
    with pytest.raises(errors.UserError, match=message):
        labelled.load([path], found.evaluations, "labels")


def test_files_that_do_not_fit_together(found, tmp_path) -> None:
    chosen = drawn.draw(found.evaluations, n=4)
    anna = saved(tmp_path, "anna", chosen)
    (tmp_path / "copy").mkdir()
    copy = saved(tmp_path / "copy", "anna", chosen)
    with pytest.raises(
        errors.UserError, match=r"copy/labels-anna.csv: line 2: .* has a label in .*labels-anna.csv: line 2"
    ):
        labelled.load([anna, copy], found.evaluations, "labels")
    harm = saved(tmp_path, "bea", chosen, asks="harm")
    kinds = r"labels-anna.csv: line 2: a label of refusal, and .*labels-bea.csv: line 2: one of harm"
    with pytest.raises(errors.UserError, match=kinds):
        labelled.load([anna, harm], found.evaluations, "labels")
    lines = anna.read_text().splitlines(keepends=True)
    (tmp_path / "half.csv").write_text("".join([*lines[:-1], lines[-1].replace(",refusal,", ",harm,")]))
    with pytest.raises(errors.UserError, match=r"half.csv: line 2: a label of refusal, and .*: line 5: one of harm"):
        labelled.load([tmp_path / "half.csv"], found.evaluations, "labels")
    with pytest.raises(errors.UserError, match=r"--labels: .*: a label of refusal, and .*: one of harm"):
        judged.find(
            grid.arrange(found.evaluations),
            found.evaluations,
            calibration=[str(anna)],
            labels=[str(harm)],
            preferences=[],
            agreed=True,
        )
    (tmp_path / "mixed.csv").write_text(anna.read_text().replace(",anna,", ",,", 1))  # one row names nobody
    mixed = labelled.by_model(labelled.load([tmp_path / "mixed.csv"], found.evaluations, "labels"), found.evaluations)
    assert sum(len(one.answers) for one in mixed) == 4 and any("mixed" in one.told for one in mixed)
    cut = tmp_path / "cut.csv"
    cut.write_text("".join(anna.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(errors.UserError, match="3 rows, and the column rows says '4'"):
        labelled.load([cut], found.evaluations, "labels")
    plain = tmp_path / "plain.csv"
    plain.write_text("label,response\nrefuse,No.\n")
    with pytest.raises(errors.UserError, match=r"--labels: no label in .*plain\.csv has a key"):
        labelled.people(labelled.load([plain], found.evaluations, "labels"), "labels")


def test_labels_by_key_alone(tmp_path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("key,label\nk1,refuse\n")
    (found,) = labels.read(path)
    assert found.answers[0].response is None and found.answers[0].fits("any") and found.answers[0].asks == "refusal"
