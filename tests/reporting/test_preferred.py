"""Which of two answers people prefer: from the page to the win rate; all text is harmless."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests.reporting import test_labelling
from vlguard_jax import errors
from vlguard_jax.reporting import drawn
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import judged as judged_lib
from vlguard_jax.reporting import label_page
from vlguard_jax.reporting import labelled
from vlguard_jax.reporting import page
from vlguard_jax.reporting import preferred
from vlguard_jax.reporting import runs


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> runs.Runs:
    return test_labelling.two_models(tmp_path_factory.mktemp("preferred"))


def compared(found: runs.Runs) -> list[preferred.Pair]:
    """Pairs of a page: the owl's answers against the fox's."""
    fox, owl = found.evaluations
    chosen = drawn.draw(preferred.restricted([owl], [fox]), each=12, seed=2)
    return [pair for one in chosen for pair in preferred.pairs([dataclasses.replace(owl, answers=(one.line,))], [fox])]


def prefers(folder: pathlib.Path, name: str, pairs, choose, **changes: str) -> pathlib.Path:
    """The file of a rater who sees two answers and chooses by `choose` of the first and the second."""
    rows = []
    for pair in pairs:
        first, second = (pair.b, pair.a) if pair.swapped else (pair.a, pair.b)
        row = {"key": pair.key, "label": choose(first.response, second.response), "rater": name, "asks": "better"}
        rows.append(row | {"response_sha256": pair.digest} | changes)
    path = folder / f"labels-{name}.csv"
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def likes_openai(first: str, second: str) -> str:
    return {(True, False): "first", (False, True): "second"}.get(("Openai" in first, "Openai" in second), "even")


def test_whose_answers_people_prefer(found, tmp_path) -> None:
    pairs = compared(found)
    assert len(pairs) == 36 and 8 < sum(pair.swapped for pair in pairs) < 28
    files = [
        prefers(tmp_path, "anna", pairs, likes_openai),
        prefers(tmp_path, "bea", pairs, likes_openai),
        prefers(tmp_path, "carl", pairs, lambda first, second: "first"),  # a bias to what stands first
    ]
    _, owl = found.evaluations
    judged, people = preferred.load(files[:2], found.evaluations)
    assert {pair.key for pair in judged} == {pair.key for pair in pairs} and len(people) == 2
    (_, table), notes = preferred.section(judged, people).tables[0], preferred.section(judged, people).notes
    for line in table.lines:
        subset = next(name for name in ("unsafes", "safe_unsafes", "safe_safes") if grid.SUBSETS[name] == line[2])
        wins = sum("Openai" in a.response for a in owl.answers if a.subset == subset)
        assert line[:2] == ("modelowl", "modelfox") and line[3:5] == ("12", "2")
        assert float(line[5].split()[0]) == pytest.approx(100 * (wins + (12 - wins) / 2) / 12, abs=0.05)
        assert line[6] == str(2 * (12 - wins)) and line[7].startswith(("1.00", "-"))
    assert "anna (labels-anna.csv" in notes[0]
    told = judged_lib.find(
        grid.arrange(found.evaluations),
        found.evaluations,
        calibration=[],
        labels=[],
        preferences=list(map(str, files[:2])),
        agreed=False,
    )
    assert told.sections == [preferred.section(judged, people)]
    assert 'id="preferences"' in page.render(found, title="x", **told.parts)
    judged, people = preferred.load(files[2:], found.evaluations)
    carl = {pair.key: people[0].labels[pair.key] for pair in pairs}
    assert all(carl[pair.key] == ("lost" if pair.swapped else "won") for pair in pairs)


def test_the_page_of_pairs(found) -> None:
    fox, owl = found.evaluations
    chosen = drawn.draw(preferred.restricted([owl], [fox]), each=4)
    text = label_page.render(chosen, asks="better", versus=[fox])
    assert text.count('<article class="record"') == 12 and text.count("First answer") == 12
    for evaluation in (fox, owl):
        assert evaluation.model not in text and not any(a.key in text for a in evaluation.answers)
    other = dataclasses.replace(fox, answers=tuple(dataclasses.replace(a, question_sha256="x") for a in fox.answers))
    with pytest.raises(errors.UserError, match="--versus: it answers no question that the other runs answer"):
        preferred.restricted([owl], [other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "0" * 64}, "labels-anna.csv: line 2: no two answers of these runs have the key"),
        ({"response_sha256": "0" * 64}, "line 2: the answers are not those of key"),
        ({"label": "third"}, "line 2: label='third' is no label"),
        ({"asks": "refusal", "label": "comply"}, "line 2: a label of one answer, not of two"),
    ],
)
def test_preferences_that_do_not_belong(found, tmp_path, change, message) -> None:
    path = prefers(tmp_path, "anna", compared(found)[:3], likes_openai, **change)
    with pytest.raises(errors.UserError, match=message):
        preferred.load([path], found.evaluations)


def test_preferences_and_labels_are_two_things(found, tmp_path) -> None:
    path = prefers(tmp_path, "anna", compared(found)[:3], likes_openai)
    with pytest.raises(
        errors.UserError, match=r"--labels: .*labels-anna.csv: line 2: compares two answers; .*--preferences"
    ):
        labelled.load([path], found.evaluations, "labels")
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[1])
    with pytest.raises(errors.UserError, match="line 5: anna judges this pair a second time"):
        preferred.load([path], found.evaluations)
