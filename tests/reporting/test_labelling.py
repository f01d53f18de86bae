"""From runs to a blinded page, from its saved files to agreement and corrected rates; all text is harmless."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import re

import pytest

from tests.reporting import stand
from tests.reporting import test_browser
from tests.reporting.test_browser import browser  # noqa: F401 -- a fixture
from tests.reporting.test_review_page import Person
from vlguard_jax import errors
from vlguard_jax.reporting import agreed
from vlguard_jax.reporting import agreed_tables
from vlguard_jax.reporting import calibrated
from vlguard_jax.reporting import drawn
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import label_page
from vlguard_jax.reporting import labelled
from vlguard_jax.reporting import page
from vlguard_jax.reporting import rejudged
from vlguard_jax.reporting import runs
from vlguard_jax.safety import agreement
from vlguard_jax.safety import results

NAMES = ("modelfox", "modelowl")


def two_models(top: pathlib.Path) -> runs.Runs:
    """Two models on the same questions: one refuses what is unsafe by half, one by a word that one judge knows."""
    world = stand.write_benchmark(top / "world", records=12, side=4)

    def half(prompt: str) -> str:
        return stand.NO if sum(map(ord, prompt)) % 2 and "Ask safe" not in prompt else stand.answers_all(prompt)

    def openai(prompt: str) -> str:  # the paper's list takes the word for a refusal, the repaired one does not
        return "Openai says yes." if sum(map(ord, prompt)) % 3 else half(prompt)

    for name, rule in zip(NAMES, (half, openai), strict=True):
        stand.evaluate(top / f"run_{name}", world, name, rule)
    return rejudged.all_by(runs.find([top]), ["keyword_repaired"])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> runs.Runs:
    return two_models(tmp_path_factory.mktemp("labelling"))


def truth(line: results.GenerationLine) -> str:
    return "refuse" if line.response == stand.NO else "comply"


def saved(folder: pathlib.Path, name: str, chosen, says=truth, **changes: str) -> pathlib.Path:
    """The file that the page saves for a rater whose labels are `says` of each answer."""
    rows = [
        {"key": one.line.key, "label": says(one.line), "rater": name, "time": "2026-01-01T00:00:00.000Z"}
        | {"rows": str(len(chosen)), "asks": "refusal", "response_sha256": results.sha256(one.line.response)}
        | changes
        for one in chosen
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = folder / f"labels-{name}.csv"
    path.write_text(text.getvalue())
    return path


def test_the_draw_asks_models_the_same_and_follows_the_seed(found) -> None:
    chosen = drawn.draw(found.evaluations, each=5, seed=3)
    items = {
        name: sorted((a.line.subset, a.line.item_id) for a in chosen if a.evaluation.model == name) for name in NAMES
    }
    assert items[NAMES[0]] == items[NAMES[1]] and len(chosen) == 2 * 3 * 5
    assert [a.line.key for a in chosen] == [a.line.key for a in drawn.draw(found.evaluations, each=5, seed=3)]
    other = {a.line.key for a in drawn.draw(found.evaluations, each=5, seed=4)}
    assert other != {a.line.key for a in chosen}
    assert len({a.evaluation.model for a in chosen[:8]}) == 2  # mixed
    assert len(drawn.draw(found.evaluations, each=1000)) == 2 * 3 * 12
    assert drawn.told(chosen)[0].endswith("run_modelfox: 5 of 12 answers to safe_safes")


def test_a_number_in_all_is_shared_in_proportion(found) -> None:
    (fox, owl) = found.evaluations
    small = dataclasses.replace(owl, answers=tuple(a for a in owl.answers if a.subset == "unsafes")[:6])
    chosen = drawn.draw([fox, small], n=14)
    counts = [
        sum(a.line.subset == s and a.evaluation is e for a in chosen)
        for e in (fox, small)
        for s in ("unsafes", "safe_unsafes", "safe_safes")
    ]
    assert sorted(counts) == [0, 0, 2, 4, 4, 4]  # of 6, 12, 12 and 12
    assert len(drawn.draw([fox, fox], n=36)) == 36  # the same answers count once
    with pytest.raises(errors.UserError, match=r"--n=37: these runs have 36 answers to draw from"):
        drawn.draw([fox, fox], n=37)
    with pytest.raises(errors.UserError, match="no answers whose refusal or harm is judged"):
        drawn.draw([dataclasses.replace(fox, answers=())], each=2)
    hidden = dataclasses.replace(fox, answers=tuple(dataclasses.replace(a, withheld=True) for a in fox.answers))
    with pytest.raises(errors.UserError, match=r"the text of 6 of the 6 drawn answers was withheld"):
        drawn.draw([hidden], each=2)


def test_the_page_names_no_model_judge_or_benchmark(found) -> None:
    chosen = drawn.draw(found.evaluations, each=4)
    text = label_page.render(chosen, asks="refusal")
    for evaluation in found.evaluations:
        for name in (
            evaluation.model,
            str(evaluation.folder),
            evaluation.folder.name,
            *{r.judge for r in evaluation.rows},
        ):
            assert name not in text
    for one in chosen:
        assert text.count(one.line.key) == 2  # the record and its digest
    assert not re.search(r"vlguard_like|unsafes|safe_safes|safe_unsafes|keyword", text)
    assert text.count("data:image/") == len(chosen) and "veil" in text
    alone = label_page.render(chosen, asks="harm", questions=False)
    assert "data:image/" not in alone and "Ask " not in alone and '"harm"' in alone and "Harmful" in alone


def test_questions_that_have_moved(found, tmp_path) -> None:
    fox = found.evaluations[0]
    benchmark = dataclasses.replace(fox.config.benchmark, path=str(tmp_path / "nowhere.json"))
    moved = dataclasses.replace(fox, config=dataclasses.replace(fox.config, benchmark=benchmark))
    with pytest.raises(
        errors.UserError, match=r"the question of .* is not at hand, .*nowhere\.json back .*--noquestions"
    ):
        label_page.render(drawn.draw([moved], each=1), asks="refusal")


@pytest.mark.parametrize("size", test_browser.SIZES)
def test_twenty_answers_by_keyboard_reach_the_report(browser, found, tmp_path, size) -> None:  # noqa: F811
    chosen = drawn.draw(found.evaluations, n=20, seed=1)
    by_key = {one.line.key: one.line for one in chosen}
    path = tmp_path / "label.html"
    path.write_text(label_page.render(chosen, asks="refusal"))
    one = Person(browser, path, size)
    test_browser.accessible(one.page)
    one.begin("anna")
    for i in range(20):
        if i == 9:
            one.page.reload()
        one.press("Space")
        if i in (0, 9):
            test_browser.accessible(one.page)
            test_browser.fits(one.page)
        one.press("1" if by_key[one.key].response == stand.NO else "3")
    name, text = one.saved()
    one.close()
    assert name == "labels-anna.csv"
    (tmp_path / name).write_text(text)
    files = labelled.load([tmp_path / name], found.evaluations, "calibration")
    (anna,) = labelled.people(files, "labels")
    assert anna.name == "anna" and anna.labels == {key: truth(line) for key, line in by_key.items()}


def measured(found, *paths: pathlib.Path) -> agreed.Agreed:
    people = labelled.people(labelled.load(paths, found.evaluations, "labels"), "labels") if paths else []
    return agreed.measure(found.evaluations, people, "refusal" if paths else "")


def test_judges_and_people_beside_each_other(found, tmp_path) -> None:
    chosen = drawn.draw(found.evaluations, each=6)
    wrong = {one.line.key for one in chosen[:3]}

    def careless(line):
        return ("partial" if line.key in wrong else "") or truth(line)

    both = measured(found, saved(tmp_path, "anna", chosen), saved(tmp_path, "bea", chosen, careless))
    assert [r.title for r in both.raters] == ["keyword_vlguard_v1", "keyword_repaired", "anna (person)", "bea (person)"]
    pairs = {(p.a, p.b): p for p in both.pairs}
    judges = pairs["keyword_vlguard_v1", "keyword_repaired"]
    openai = sum("Openai" in a.response for e in found.evaluations for a in e.answers)
    assert judges.n == 72 and judges.n - judges.same == openai == judges.counts["refuse", "comply"] > 0
    people = pairs["anna (person)", "bea (person)"]
    assert people.n == 36 and people.same == 33
    assert people.kappa == agreement.kappa(people.table)
    alphas = {(who, where): alpha for who, where, alpha in both.alphas}
    assert alphas["all people", "all"].answers == 36 and alphas["everyone", "all"].labels == 2 * 72 + 2 * 36
    assert ("all judges", "vlguard_like unsafes") in alphas
    assert len(both.majority) == 36 and [k for k, v in both.majority.items() if v is None] == [
        k for k in both.answers if k in wrong
    ]
    differ = {a.key for e in found.evaluations for a in e.answers if "Openai" in a.response} | wrong
    assert set(both.disagreements) == differ


def test_a_verdict_that_is_none_is_missing(found) -> None:
    fox = found.evaluations[0]
    verdicts = tuple(
        dataclasses.replace(v, label="invalid") if v.judge == "keyword_repaired" and i % 4 else v
        for i, v in enumerate(fox.verdicts)
    )
    both = agreed.measure([dataclasses.replace(fox, verdicts=verdicts)], [])
    judge = both.raters[1]
    assert judge.invalid > 0 and judge.invalid + len(judge.labels) == 36 and both.pairs[0].n == len(judge.labels)


def test_versions_of_one_judge_are_two_raters(found) -> None:
    fox = found.evaluations[0]
    rows = tuple(dataclasses.replace(row, judge_version="9") for row in fox.rows)
    verdicts = tuple(dataclasses.replace(v, judge_version="9") for v in fox.verdicts)
    again = dataclasses.replace(fox, rows=rows, verdicts=verdicts)
    names = [r.name for r in agreed.measure([fox, again], []).raters]
    assert len(names) == len(set(names)) == 4 and "keyword_repaired, version 9" in names


def test_files_and_tables(found, tmp_path) -> None:
    chosen = drawn.draw(found.evaluations, each=6)
    paths = [saved(tmp_path, name, chosen) for name in ("anna", "bea")]
    both = measured(found, *paths)
    agreed_tables.save(both, tmp_path / "out")
    values = json.loads((tmp_path / "out" / "agreement.json").read_text())
    pair = next(p for p in values["pairs"] if p["b"] == "bea (person)" and p["a"] == "anna (person)")
    assert (
        pair["kappa"]["value"] == 1 and pair["kappa"]["low"] < 1 and pair["confusion"]["labels"] == ["refuse", "comply"]
    )
    assert "Openai" not in (tmp_path / "out" / "agreement.json").read_text()
    with (tmp_path / "out" / "disagreements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["key"] for row in rows} == set(both.disagreements) and all("Openai" in row["response"] for row in rows)
    assert all((row["keyword_vlguard_v1"], row["keyword_repaired"]) == ("refuse", "comply") for row in rows)
    (most,) = labelled.people(labelled.load([tmp_path / "out" / "majority.csv"], found.evaluations, "labels"), "labels")
    assert most.name == "majority" and most.labels == {one.line.key: truth(one.line) for one in chosen}
    agreed_tables.save(measured(found), tmp_path / "out")
    assert not (tmp_path / "out" / "majority.csv").exists()  # not of this report
    text = page.render(found, title="x", agreement=agreed_tables.shown(both))
    assert 'id="agreement"' in text and "anna (person)" in text and 'class="unsafe"' in text.split('id="agreement"')[1]
    hidden = agreed_tables.shown(
        dataclasses.replace(
            both, answers={key: dataclasses.replace(answer, text=None) for key, answer in both.answers.items()}
        )
    )
    assert all(one.text is None for one in hidden.disagreements) and len(hidden.disagreements) == len(
        both.disagreements
    )


@pytest.mark.parametrize("size", test_browser.SIZES)
def test_the_report_shows_agreement(browser, found, tmp_path, size) -> None:  # noqa: F811
    chosen = drawn.draw(found.evaluations, each=6)
    both = measured(found, *(saved(tmp_path, name, chosen) for name in ("anna", "bea")))
    path = tmp_path / "report.html"
    path.write_text(page.render(found, title="x", agreement=agreed_tables.shown(both)))
    with test_browser.opened(browser, path, *test_browser.SIZES[size]) as view:
        fold = view.locator("#agreement details.unsafe")
        answer = fold.locator("dd.veil").first
        assert not answer.is_visible()
        fold.locator("summary").click()
        blur = "e => getComputedStyle(e).filter"
        assert answer.is_visible() and "blur" in answer.evaluate(blur)
        fold.locator("input").check()
        assert answer.evaluate(blur) == "none"
        view.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        test_browser.fits(view)
        test_browser.accessible(view)


def test_too_few_raters(found) -> None:
    fox, owl = (
        dataclasses.replace(e, rows=tuple(r for r in e.rows if r.judge == "keyword_vlguard_v1"))
        for e in found.evaluations
    )
    with pytest.raises(errors.UserError, match=r"keyword_vlguard_v1 alone labels answers .* --judges .* --labels"):
        agreed.measure([fox, owl], [])
    with pytest.raises(errors.UserError, match="label no answer in common"):
        agreed.measure([fox], [labelled.Person("anna", {"k": "refuse"}, "anna.csv")])


def calibrate(found, *paths: pathlib.Path):
    files = labelled.load(paths, found.evaluations, "calibration")
    return calibrated.calibrate(grid.arrange(found.evaluations), labelled.by_model(files, found.evaluations))


def test_raters_files_correct_the_rates_of_their_models(found, tmp_path) -> None:
    chosen = drawn.draw(found.evaluations, each=12)
    odd = {one.line.key for one in chosen[::9]}

    def other(line):
        return {"refuse": "comply", "comply": "refuse"}[truth(line)] if line.key in odd else truth(line)

    three = [saved(tmp_path, name, chosen, label) for name, label in (("a", truth), ("b", other), ("c", truth))]
    made = calibrate(found, *three)
    assert made.tables[1][1].headings[-2:] == tuple(f"corrected by labels on {name}" for name in NAMES)
    lines = {(line[0], line[1]): line for line in made.tables[0][1].lines}
    fox = lines["keyword_repaired", NAMES[0]]
    assert fox[3].startswith("100.0 [") and fox[4].startswith("100.0 [")  # the majority is the truth
    figures = [f for f in made.figures if f["judge"] == "keyword_repaired" and f["labels_on"] == f["model"] == NAMES[0]]
    assert {f["subset"] for f in figures} >= {"unsafes", "safe_unsafes"} and all(f["n"] == 12 for f in figures)
    assert all(f["rate"] == pytest.approx(f["judged"]) and f["ci_low"] <= f["rate"] <= f["ci_high"] for f in figures)
    agreed_tables.save(measured(found, *three), tmp_path / "out", made.figures)
    with (tmp_path / "out" / "corrected.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [float(row["rate"]) for row in written] == [f["rate"] for f in made.figures]
    assert json.loads((tmp_path / "out" / "agreement.json").read_text())["corrected"] == list(made.figures)
    assert any("what most say of a (labels-a.csv" in note and "0 on which they are even" in note for note in made.notes)
    tied = calibrate(found, *three[:2])
    assert any(
        f"{sum(o.evaluation.model == NAMES[0] for o in chosen[::9])} on which they are even" in n for n in tied.notes
    )


def test_a_judge_with_a_prompt_is_measured_by_its_stored_verdicts(found, tmp_path) -> None:
    """Nothing of it can be run here: the labels' keys lead to what it said."""
    prompt = {"judge": "guard", "judge_version": "7", "judge_prompt_sha256": "f" * 64}

    def guarded(evaluation):
        rows = tuple(dataclasses.replace(r, **prompt) if r.judge == "keyword_repaired" else r for r in evaluation.rows)
        verdicts = tuple(
            dataclasses.replace(v, **prompt) if v.judge == "keyword_repaired" else v for v in evaluation.verdicts
        )
        return dataclasses.replace(evaluation, rows=rows, verdicts=verdicts)

    guards = dataclasses.replace(found, evaluations=tuple(map(guarded, found.evaluations)))
    chosen = drawn.draw(guards.evaluations, each=12)
    path = saved(tmp_path, "anna", chosen)
    plain, other = calibrate(found, path), calibrate(guards, path)

    def of(section, judge):
        return [line[3:] for line in section.tables[1][1].lines if line[2] == judge]

    assert of(other, "guard") == of(plain, "keyword_repaired") and of(other, "guard")
    without = tmp_path / "hound.csv"
    without.write_text("label,response\nrefuse,I cannot do that.\nrefuse,I cannot do this.\ncomply,Yes.\ncomply,Ja.\n")
    mixed = calibrate(guards, without)
    assert all(line[-1] == "-" for line in mixed.tables[1][1].lines if line[2] == "guard")
    assert any(note.startswith("Not measured: guard judges with a prompt") for note in mixed.notes)
    only = dataclasses.replace(
        guards,
        evaluations=tuple(
            dataclasses.replace(e, rows=tuple(r for r in e.rows if r.judge == "guard")) for e in guards.evaluations
        ),
    )
    with pytest.raises(errors.UserError, match=r"guard judges with a prompt, .*vlguard_jax\.label"):
        calibrate(only, without)
