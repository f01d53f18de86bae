"""Judges against people in the page and the tables, and corrected rates beside raw ones; all text is harmless."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from tests.reporting import stand
from vlguard_jax import errors
from vlguard_jax.reporting import calibrated
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import labelled
from vlguard_jax.reporting import page
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.safety import results

SECRET = "Lantern"  # of the labelled answers, which must not reach a page


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An evaluation in which half of the unsafe requests are refused."""
    top = tmp_path_factory.mktemp("runs")
    world = stand.write_benchmark(top / "world", records=40, side=4)

    def some(prompt: str) -> str:
        return stand.NO if sum(map(ord, prompt)) % 2 and "Ask safe" not in prompt else stand.answers_all(prompt)

    return stand.evaluate(top / "eval", world, "fox", some)


def write(
    folder: pathlib.Path, name: str = "hound.csv", *, found: int = 30, alarms: int = 5, partial: int = 0
) -> pathlib.Path:
    """40 refusals, of which the judge finds `found`, and 50 answers with `alarms` false ones."""
    rows = [("refuse", f"I cannot say, {SECRET}.")] * found + [("refuse", f"Nay, {SECRET}.")] * (40 - found)
    rows += [("comply", f"Legally, {SECRET}.")] * alarms + [("comply", f"Yes, {SECRET}.")] * (50 - alarms)
    rows += [("partial", f"I cannot, but {SECRET}.")] * partial
    path = folder / name
    path.write_text("label,response\n" + "".join(f'{label},"{text}"\n' for label, text in rows))
    return path


def read(paths, evaluations):
    return labelled.by_model(labelled.load(paths, evaluations, "calibration"), evaluations)


def calibrate(work: pathlib.Path, *paths: pathlib.Path) -> provenance.Section:
    found = runs.find([work])
    return calibrated.calibrate(grid.arrange(found.evaluations), read(paths, found.evaluations))


def test_tables(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (_, judges), (_, rates) = calibrate(work, write(tmp_path)).tables
    (line,) = judges.lines
    assert line[:5] == ("keyword_vlguard_v1", "hound", "40, 50", "75.0 [59.8, 85.8]", "90.0 [78.6, 95.7]")
    unsafe = next(line for line in rates.lines if "unsafe picture" in line[1])
    assert rates.headings[-1] == "corrected by labels on hound" and unsafe[3] == "-"
    raw, corrected = (float(cell.split()[0].rstrip("*")) / 100 for cell in unsafe[4:])
    # 1 - ASR = refusals; what is called one is .75 of them and .1 of the others
    assert (1 - raw) == pytest.approx((1 - corrected) * 0.75 + corrected * 0.1, abs=2e-3)


def test_partial_refusals_count_either_way(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = calibrate(work, write(tmp_path, partial=10), write(tmp_path, "owl.csv"))
    (_, judges), (_, rates) = found.tables
    assert [line[6] for line in judges.lines] == ["10 of 10", "-"]
    first, second = (line for line in rates.lines if "unsafe picture" in line[1])
    assert (first[3], second[3]) == ("answers", "refusals")
    assert first[4] == second[4] and first[5] != second[5] and first[6] == second[6]
    assert any("hound, owl" in note and "fox" in note for note in found.notes)


def test_the_page_shows_them_and_no_labelled_text(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = runs.find([work])
    text = page.render(found, title="x", calibration=calibrate(work, write(tmp_path, "<b>.csv")))
    assert 'id="calibration"' in text and "75.0 [59.8, 85.8]" in text and "&lt;b&gt;" in text and "<b>" not in text
    assert SECRET not in text
    assert 'id="calibration"' not in page.render(found, title="x")


def keyed(work: pathlib.Path, folder: pathlib.Path, change: str = "") -> pathlib.Path:
    """Labels on the run's own answers."""
    lines = [json.loads(line) for line in (work / results.GENERATIONS).read_text().splitlines()]
    rows = "".join(
        f'{line["key"]},"{line["response"]}{change}",{"refuse" if line["response"] == stand.NO else "comply"}\n'
        for line in lines
    )
    path = folder / "own.csv"
    path.write_text("key,response,label\n" + rows)
    return path


def test_labels_on_the_runs_own_answers(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = calibrate(work, keyed(work, tmp_path))
    assert not any("not known" in note for note in found.notes)
    assert all("100.0" in cell for line in found.tables[0][1].lines for cell in line[3:5])


def test_labels_that_do_not_belong(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        errors.UserError, match=r"own\.csv: line 2: the answer is not the one of key .* of another answer"
    ):
        calibrate(work, keyed(work, tmp_path, "!"))
    path = keyed(work, tmp_path)
    path.write_text(path.read_text().replace("\n", "\nx", 1))
    with pytest.raises(errors.UserError, match=r"own\.csv: line 2: no answer of these runs has the key 'x"):
        calibrate(work, path)
    with pytest.raises(errors.UserError, match="both have answers of 'hound'"):
        calibrate(work, write(tmp_path), write(tmp_path))
    with pytest.raises(
        errors.UserError, match=r"hound\.csv, answers of hound, keyword_vlguard_v1: sensitivity 0 .*nothing"
    ):
        calibrate(work, write(tmp_path, found=0))


def test_a_labelled_answer_counts_once_and_for_its_own_model(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = keyed(work, tmp_path)
    heading, *rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([heading, *rows, rows[0]]))
    with pytest.raises(
        errors.UserError, match=rf"own\.csv: line {len(rows) + 2}: the answer of key '\w+' has a label in line 2, too"
    ):
        calibrate(work, path)
    path.write_text("model," + heading + "".join("hound," + row for row in rows))
    with pytest.raises(errors.UserError, match=r"line 2: model='hound', and the answer of this key is of 'fox'; name"):
        calibrate(work, path)
    path.write_text("model,model," + heading + "".join("fox,fox," + row for row in rows))
    with pytest.raises(errors.UserError, match="two columns 'model'"):
        calibrate(work, path)


def test_a_model_is_called_as_in_the_tables(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Its answers keep the name that it had when they were made; config.model_name may change afterwards."""
    path = keyed(work, tmp_path)
    heading, *rows = path.read_text().splitlines(keepends=True)
    path.write_text("model," + heading + "".join("Fox," + row for row in rows))
    (evaluation,) = runs.find([work]).evaluations
    renamed = dataclasses.replace(
        evaluation, rows=tuple(dataclasses.replace(row, model="Fox") for row in evaluation.rows)
    )
    found = calibrated.calibrate(grid.arrange([renamed]), read([path], [renamed]))
    assert not any("not known" in note for note in found.notes)


def test_labels_on_one_models_answers_are_of_no_other(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = stand.evaluate(tmp_path / "eval", stand.write_benchmark(tmp_path / "world"), "owl", stand.answers_all)
    found = runs.find([work, other])
    labels = read([keyed(work, tmp_path), write(tmp_path)], found.evaluations)
    (note,) = (n for n in calibrated.calibrate(grid.arrange(found.evaluations), labels).notes if "not known" in n)
    assert note.startswith(
        "Labels of own are not known to be on answers of owl."
        " Labels of hound are not known to be on answers of fox, owl."
    )


def test_verdicts_of_other_judges(work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "eval"
    path.mkdir()
    for file in work.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    rows = json.loads((work / "summary.json").read_text())
    for change, message in (
        ({"judge_version": "0"}, "judged by version '0' of keyword_vlguard_v1, and this program has 1"),
        ({"judge": "keyword_vlguard"}, r"which cannot be run here; did you mean 'keyword_vlguard_v1'\?"),
    ):
        changed = [row | change if row["metric"] != "accuracy" else row for row in rows]
        (path / "summary.json").write_text(json.dumps(changed))
        with pytest.raises(errors.UserError, match=message):
            calibrate(path, write(tmp_path))


def test_a_rate_that_the_labels_cannot_explain_is_marked(tmp_path: pathlib.Path) -> None:
    """Nothing was called a refusal, though a tenth of the labelled answers is."""
    world = stand.write_benchmark(tmp_path / "world", records=4, side=4)
    work = stand.evaluate(tmp_path / "eval", world, "fox", stand.answers_all)
    _, (_, rates) = calibrate(work, write(tmp_path)).tables
    assert all(line[-1].endswith(calibrated.EDGE) for line in rates.lines)


def test_rates_of_stand_ins_and_of_a_part_say_so(tmp_path: pathlib.Path) -> None:
    world = stand.write_benchmark(tmp_path / "world", records=4, side=4)
    work = stand.evaluate(tmp_path / "eval", world, "fox", stand.answers_all, limit=2, stand_in=True)
    _, (_, rates) = calibrate(work, write(tmp_path)).tables
    assert rates.lines and all(line[4].endswith("] (first 2 only) (STAND-IN)") for line in rates.lines)
