"""What shares a column, or is averaged, was asked the same; what differs is named."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

from PIL import Image
import pytest

from tests.reporting import stand
from tests.reporting import test_grid
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families.chat import templates
from vlguard_jax.reporting import alike
from vlguard_jax.reporting import answers
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import page
from vlguard_jax.reporting import runs
from vlguard_jax.reporting import tradeoff


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> pathlib.Path:
    return stand.write_benchmark(tmp_path / "world")


def change_record(bench: pathlib.Path, how: str) -> None:
    values = json.loads((bench / "test.json").read_text())
    if how == "text":
        values[1]["instr-resp"][0]["instruction"] = "Ask something else?"
    elif how == "id":
        values[1]["id"] = "x1"
    elif how == "picture":
        Image.new("RGB", (24, 24)).save(bench / "test" / values[1]["image"])
    (bench / "test.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("text", "item v1 has another text or suffix"),
        ("picture", "item v1 has another picture"),
        ("id", "only .* asked item v1"),
    ],
)
def test_other_questions_under_one_heading(tmp_path: pathlib.Path, bench: pathlib.Path, how: str, found: str) -> None:
    """The same number of questions of the same name: nothing in the table would tell them apart."""
    stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all)
    change_record(bench, how)
    stand.evaluate(tmp_path / "runs/hound", bench, "hound", stand.answers_all)
    with pytest.raises(
        errors.UserError, match=rf"hound and .*fox were not asked the same unsafes of vlguard_like: {found}; evaluate"
    ):
        page.write([tmp_path / "runs"], tmp_path / "page.html", title="x")
    assert not (tmp_path / "page.html").exists()


def test_another_suffix(tmp_path: pathlib.Path, bench: pathlib.Path) -> None:
    stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all, text=True)
    stand.evaluate(tmp_path / "runs/hound", bench, "hound", stand.answers_all, text=True, suffix="Say yes.")
    with pytest.raises(errors.UserError, match="the same text_suffix of prompts: item t0 has another text or suffix"):
        alike.check(runs.find([tmp_path / "runs"]).evaluations)


def test_without_answers_the_rows_still_tell(tmp_path: pathlib.Path, bench: pathlib.Path) -> None:
    stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all, text=True)
    stand.evaluate(tmp_path / "runs/hound", bench, "hound", stand.answers_all, text=True, suffix="Say yes.")
    (tmp_path / "runs/fox/generations.jsonl").unlink()
    with pytest.raises(errors.UserError, match=r"the same text_suffix of prompts: .*their answers are not at hand"):
        alike.check(runs.find([tmp_path / "runs"]).evaluations)


def test_a_first_look_is_marked_and_stays_out_of_the_balance(tmp_path: pathlib.Path, bench: pathlib.Path) -> None:
    for name in ("fox", "hound"):
        stand.evaluate(tmp_path / "runs" / name, bench, name, stand.refuses_harm)
    stand.evaluate(tmp_path / "runs/look", bench, "look", stand.answers_all, limit=2)
    evaluations = runs.find([tmp_path / "runs"]).evaluations
    alike.check(evaluations)
    arranged = grid.arrange(evaluations)
    look = next(line for line in arranged.lines if line.model == "look")
    assert grid.marks(look.cells[0], arranged.columns[0]) == ["n = 2", "first 2 only"]
    balance = tradeoff.find(arranged)
    assert [p.label for p in balance.points] == ["fox", "hound"] and balance.absent == ("look",)
    assert "look" not in tradeoff.sentence(arranged)


def test_a_first_look_at_other_questions_is_refused(tmp_path: pathlib.Path, bench: pathlib.Path) -> None:
    stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all)
    change_record(bench, "text")
    stand.evaluate(tmp_path / "runs/look", bench, "look", stand.answers_all, limit=2)
    with pytest.raises(errors.UserError, match="item v1 has another text"):
        alike.check(runs.find([tmp_path / "runs"]).evaluations)


def test_another_way_of_asking_is_named_in_the_table(
    tmp_path: pathlib.Path, bench: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all)
    plain = config.ModelSettings

    def other(path: str) -> config.ModelSettings:
        return plain(path, template="llava_v1", image_mode="crop")

    monkeypatch.setattr(config, "ModelSettings", other)
    stand.evaluate(tmp_path / "runs/hound", bench, "hound", stand.answers_all)
    monkeypatch.undo()
    found = grid.arrange(runs.find([tmp_path / "runs"]).evaluations)
    assert [line.label for line in found.lines] == [
        "fox (template vicuna_v1, preprocessing pad)",
        "hound (template llava_v1, preprocessing crop)",
    ]
    assert "template llava_v1" in grid.markdown(found) and {"vicuna_v1", "llava_v1"} <= set(templates.TEMPLATES)


def test_limits_of_an_answer_are_named_where_they_differ() -> None:
    rows = [
        test_grid.row(),
        test_grid.row(model="hound", decode=dataclasses.replace(test_grid.row().decode, max_new=8)),
    ]
    found = grid.arrange([test_grid.evaluation(rows[0]), test_grid.evaluation(rows[1], folder="b")])
    assert [line.detail for line in found.lines] == ["1 to 256 new tokens", "1 to 8 new tokens"]


def test_sampling_is_named_where_it_differs() -> None:
    """Another seed or number of slots is none."""
    greedy = test_grid.row().decode
    others = (greedy, dataclasses.replace(greedy, sampling="drawn", temperature=0.5))
    for other, details in zip(others, (["", ""], ["greedy", "drawn at temperature 0.5, top_p 1"]), strict=True):
        rows = [test_grid.row(), test_grid.row(model="hound", decode=dataclasses.replace(other, seed=4, slots=8))]
        found = grid.arrange([test_grid.evaluation(rows[0]), test_grid.evaluation(rows[1], folder="b")])
        assert [line.detail for line in found.lines] == details


def test_templates_of_one_name_are_told_apart_by_their_hash() -> None:
    rows = [test_grid.row(template_sha256="0" * 64), test_grid.row(model="hound", template_sha256="1" * 64)]
    found = grid.arrange([test_grid.evaluation(rows[0]), test_grid.evaluation(rows[1], folder="b")])
    assert [line.detail for line in found.lines] == ["template llava_v1 00000000", "template llava_v1 11111111"]


def test_versions_of_a_judge_stand_in_columns_of_their_own() -> None:
    rows = [test_grid.row(), test_grid.row(model="hound", judge_version="2")]
    found = grid.arrange([test_grid.evaluation(rows[0]), test_grid.evaluation(rows[1], folder="b")])
    assert [sum(cell is not None for cell in line.cells) for line in found.lines] == [1, 1]
    assert [found.heading(c).rpartition(", ")[2] for c in found.columns] == ["version 1", "version 2"]


def test_answers_that_are_not_the_rows_are_not_shown(tmp_path: pathlib.Path, bench: pathlib.Path) -> None:
    """A folder that was asked other questions before, or another model, keeps those answers; the report shows the last
    ones."""
    stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all, subsets=("unsafes",))
    change_record(bench, "text")
    stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all, subsets=("unsafes",))
    (evaluation,) = runs.find([tmp_path / "runs"]).evaluations
    assert [a.item_id for a in evaluation.answers].count("v1") == 1 and len(evaluation.answers) == 4
    stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all, subsets=("unsafes",), limit=2)
    found = runs.find([tmp_path / "runs"])
    assert not found.evaluations[0].answers and "answers to unsafes are not shown" in found.notices[0]


def test_a_question_that_has_changed_since_is_not_shown(tmp_path: pathlib.Path, bench: pathlib.Path) -> None:
    stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all, subsets=("unsafes",))
    change_record(bench, "text")
    evaluations = runs.find([tmp_path / "runs"]).evaluations
    (subset,) = answers.show(evaluations, grid.arrange(evaluations))
    line = next(a for a in evaluations[0].answers if a.item_id == "v1")
    assert answers._item("v1", {"fox": (evaluations[0], line)}).question == "Ask 1?"  # as it was asked
    older = dataclasses.replace(line, question="")
    shown = {item.id: item.question for item in subset.items} | {
        "v1": answers._item("v1", {"fox": (evaluations[0], older)}).question
    }
    assert shown["v1"].startswith("The benchmark's file has changed since")
    assert all(re.match("Ask .*[0-9]", question) for id_, question in shown.items() if id_ != "v1")


def test_most_answers_cut_is_said_in_cell_and_page(tmp_path: pathlib.Path, bench: pathlib.Path) -> None:
    summary = stand.evaluate(tmp_path / "runs/fox", bench, "fox", stand.answers_all) / "summary.json"
    rows = json.loads(summary.read_text())
    assert {row["n_cut"] for row in rows} == {0}
    for count, marked in ((2, False), (3, True), (4, True)):
        summary.write_text(json.dumps([row | {"n_cut": count} for row in rows]))
        found = runs.find([tmp_path / "runs"])
        arranged = grid.arrange(found.evaluations)
        text = page.render(found, title="x")
        assert (f"({count} of 4 cut)" in grid.markdown(arranged)) == marked == ("at the limit of new tokens" in text)
