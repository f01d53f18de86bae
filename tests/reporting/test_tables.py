"""Tables say what was measured, on what, and what may not be compared."""

import io

import pytest

from tests.safety import stand
from vlguard_jax import terminal
from vlguard_jax.reporting import tables
from vlguard_jax.safety import paper


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
        ({"n_invalid": 3}, "invalid", "3", ""),
        (
            {"vs_baseline": stand.difference(-0.5, -0.6, -0.4, 1e-9)},
            "vs baseline",
            "-50.00 (-60.00 to -40.00), p = <0.0001",
            "",
        ),
        (
            {"vs_baseline": stand.difference(-0.5, -0.6, -0.4, 0.5, "llava_v1")},
            *("vs baseline", "-50.00 (-60.00 to -40.00), p = 0.5, with template llava_v1 there", ""),
        ),
        ({"n_cut": 3}, "cut", "3", "at config.decode.max_new_tokens"),
        ({"n_cut": 222}, "cut", "222", "CUT: 222 of 442 answers to unsafes were cut"),
        ({"n_cut": 442}, "cut", "442", "CUT: all 442 answers to unsafes were cut"),
        ({"paper": compared()}, "reproduced?", "yes (p = 0.43)", "Boschloo"),
        ({"paper": compared(0.001, False)}, "reproduced?", "no (p = 0.001)", "Boschloo"),
        (
            {"paper": compared(None, None, "win rate")},
            "reproduced?",
            "not comparable: win rate",
            "",
        ),
        (
            {"paper": compared(None, None, "impossible: x")},
            "paper %",
            "72.62*",
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
    text = tables.markdown(rows)
    assert text.splitlines()[1].replace("---", "").strip("| ") == "" and "fox\\|hound" in text and "- released:" in text
    out = io.StringIO()
    terminal.Console(file=out, width=200).print(tables.table(rows, "Foxes"))
    assert all(word in out.getvalue() for word in ("Foxes", "72.62", "68.20 to 76.58", "safe_safes", "refusal rate"))


def test_show_is_wide_in_a_pipe_and_prints_the_notes(capsys):
    tables.show([stand.row(judge="j" * 60, paper=compared())])
    printed = capsys.readouterr().out
    assert "j" * 60 in printed and "reproduced?: Boschloo" in printed
