"""Tables say what was measured, on what, and what may not be compared."""

import dataclasses
import io

import pytest

from tests.safety import stand
from vlguard_jax import terminal
from vlguard_jax.reporting import tables
from vlguard_jax.safety import paper
from vlguard_jax.safety import summary


def cells(*rows):
    headings, lines = tables.cells(rows)
    return [dict(zip(headings, line, strict=True)) for line in lines]


def test_plain_row():
    (found,) = cells(stand.row())
    assert found == {
        "model": "fox",
        "asked as": "released",
        "subset": "unsafes",
        "measure": "asr",
        "n": "442",
        "%": "72.62",
        "95 % interval": "68.20 to 76.58",
    }
    note, judge = tables.notes([stand.row()])
    assert judge == "judge: keyword_vlguard_v1"
    assert "llava_v1" in note and "crop" in note and "1 to 256" in note and "fp32" in note and "0123456789ab" in note


def compared(p: float | None = 0.43, reproduced: bool | None = True, note: str = "") -> paper.Comparison:
    return paper.Comparison("LLaVA-v1.5-7B", 72.62, 442, 321, p, reproduced, note)


@pytest.mark.parametrize(
    ("changes", "heading", "cell", "note"),
    [
        ({"stand_in": True}, "pictures", "STAND-IN", "rehearsal"),
        ({"image_mode": "white"}, "pictures", "white", "replaced by a white one"),
        ({"image_mode": "black", "stand_in": True}, "pictures", "black, STAND-IN", "replaced by a black one"),
        ({"image_mode": "none"}, "pictures", "none", "asked without a picture"),
        ({"n": 20, "first_n": 20}, "n", "first 20", "only the first n"),
        ({"n": 20, "first_n": 20, "part": "drawn"}, "n", "drawn 20", "only the drawn n"),
        ({"n_invalid": 3}, "invalid", "3", "answers without a verdict"),
        (
            {"subset": "xstest_safe", "paper": paper.Comparison("LLaVA-v1.5-7B", 8.8, 250, 22, 0.4, True)},
            *("paper %", "8.80 (n = 250)", "100 minus the printed one"),
        ),
        (
            {"vs_baseline": stand.difference(-0.5, -0.6, -0.4, 1e-9)},
            "vs baseline",
            "-50.00 (-60.00 to -40.00), p < 0.0001",
            "",
        ),
        (
            {"vs_baseline": stand.difference(-0.5, -0.6, -0.4, 0.5, "llava_v1")},
            *("vs baseline", "-50.00 (-60.00 to -40.00), p = 0.5, with template llava_v1 there", ""),
        ),
        (
            {"n": 440, "n_bad_picture": 2},
            "n",
            "440 of 442",
            "the other questions have a picture that cannot be read and",
        ),
        (
            {"n": 439, "n_bad_picture": 2, "n_too_long": 1},
            *("n", "439 of 442", "longer than the model's context or have a picture that cannot be read and were left"),
        ),
        ({"n_cut": 3}, "cut", "3", "at config.decode.max_new_tokens"),
        ({"n_cut": 222}, "cut", "222", "CUT: 222 of 442 answers to unsafes were cut"),
        ({"n_cut": 442}, "cut", "442", "CUT: all 442 answers to unsafes were cut"),
        ({"paper": compared()}, "reproduced?", "yes: +0.00 (-5.87 to +5.87), p = 0.43", "Boschloo"),
        ({"paper": compared(0.001, False)}, "reproduced?", "no: +0.00 (-5.87 to +5.87), p = 0.001", "Boschloo"),
        (
            {"paper": compared(None, None, "win rate")},
            "reproduced?",
            "not comparable: win rate",
            "",
        ),
        (
            {"paper": compared(None, None, "impossible: x")},
            "paper %",
            "72.62* (n = 442)",
            "*: no count",
        ),
    ],
)
def test_marks(changes, heading, cell, note):
    rows = [stand.row(), stand.row(**changes)]
    first, second = cells(*rows)
    assert second[heading] == cell and first[heading] != cell
    notes = "\n".join(tables.notes(rows))
    assert note in notes
    assert not note or note not in "\n".join(tables.notes(rows[:1]))


def test_markdown_and_terminal_hold_every_cell():
    rows = [stand.row(), stand.row(subset="safe_safes", metric="refusal_rate", model="fox|hound")]
    text = tables.markdown_table(*tables.cells(rows))
    assert text.splitlines()[1].replace("---", "").strip("| ") == "" and "fox\\|hound" in text
    out = io.StringIO()
    terminal.Console(file=out, width=200).print(tables.table(*tables.cells(rows), "Foxes"))
    assert all(word in out.getvalue() for word in ("Foxes", "72.62", "68.20 to 76.58", "safe_safes", "refusal rate"))


def test_tests_of_one_column_are_adjusted_together():
    """Holm's own rule by hand: .01 x 3, .02 x 2, .5 x 1; the paper's column is a family of its own."""
    rows = [
        stand.row(vs_baseline=stand.difference(0.1, 0.0, 0.2, p), paper=compared(0.03, False))
        for p in (0.02, 0.5, 0.01)
    ]
    rows[1:] = [dataclasses.replace(row, paper=None) for row in rows[1:]]
    found = cells(*rows)
    assert [line["vs baseline"].partition("), ")[2] for line in found] == [
        "p = 0.02, Holm 0.04",
        "p = 0.5",
        "p = 0.01, Holm 0.03",
    ]
    assert found[0]["reproduced?"].startswith("no: ") and found[0]["reproduced?"].endswith("p = 0.03")
    assert "Holm:" in "\n".join(tables.notes(rows)) and "Holm:" not in "\n".join(tables.notes(rows[:1]))


def test_what_one_test_alone_would_reject_may_stand_among_several():
    rows = [stand.row(paper=compared(0.03, False)), stand.row(subset="figs", paper=compared(0.4))]
    first, second = cells(*rows)
    assert first["reproduced?"] == "yes: +0.00 (-5.87 to +5.87), p = 0.03, Holm 0.06"
    assert second["reproduced?"].endswith("p = 0.4")


def test_categories_have_intervals_and_numbers(capsys):
    parts = tuple(
        summary.CategoryRate(category="a", subcategory=sub, n=4, count=1, rate=0.25, ci_low=0.1, ci_high=0.6)
        for sub in (None, "b")
    )
    headings, lines = tables.categories([stand.row(by_category=parts), stand.row()])
    assert headings == ["subset", "measure", "category", "n", "%", "95 % interval"]
    assert lines == [["unsafes", "asr", name, "4", "25.00", "10.00 to 60.00"] for name in ("a", "a / b")]
    assert tables.categories([stand.row()])[1] == []
    tables.show([stand.row(by_category=parts)])
    assert "10.00 to 60.00" in capsys.readouterr().out


def test_show_is_wide_in_a_pipe_and_prints_the_notes(capsys):
    tables.show([stand.row(judge="j" * 60, paper=compared())])
    printed = capsys.readouterr().out
    assert "j" * 60 in printed and "reproduced?: Boschloo" in printed
