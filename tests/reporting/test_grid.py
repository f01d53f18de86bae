"""Rows find their cells, and the table says the same in every format."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.safety import stand
from vlguard_jax import config
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import grid_latex
from vlguard_jax.reporting import runs

row = stand.row
TEXT: dict[str, Any] = {"image_mode": "none", "n_by_pictures": (442,)}  # fields of questions without pictures


def evaluation(*rows, folder="runs/a"):
    return runs.Evaluation(pathlib.Path(folder), config.EvalConfig(), tuple(rows), (), ())


def test_groups_stand_together_and_controls_last():
    rows = [
        row(subset="text_unsafe", benchmark="prompts", **TEXT),
        row(subset="safe_safes", metric="accuracy", judge="exact"),
        row(subset="safe_safes", metric="refusal_rate"),
        row(image_mode="white"),
        row(),
    ]
    found = grid.arrange([evaluation(*rows)])
    assert [(c.subset, c.metric, c.control) for c in found.columns] == [
        ("unsafes", "asr", False),
        ("text_unsafe", "asr", False),
        ("safe_safes", "refusal_rate", False),
        ("safe_safes", "accuracy", False),
        ("unsafes", "asr", True),
    ]
    assert [(g.direction, width) for g, width in found.groups] == [
        (grid.LOWER, 2),
        (grid.LOWER, 1),
        (grid.HIGHER, 1),
        (grid.NEITHER, 1),
    ]
    assert [cell.rated.row for cell in found.lines[0].cells] == [rows[i] for i in (4, 0, 2, 1, 3)]
    assert found.heading(found.columns[-1]) == "unsafe picture, shown white, ASR"


def test_a_model_keeps_one_line_over_its_evaluations():
    found = grid.arrange(
        [evaluation(row()), evaluation(row(subset="safe_safes", preset="other", seed=3), folder="runs/b")]
    )
    assert [line.label for line in found.lines] == ["fox"] and len(found.columns) == 2


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"weights_sha256": "fedcba9876543210"}, "weights fedcba98"),
        ({"seed": 1}, "seed 1"),
        ({"template": "vicuna_v1"}, "template vicuna_v1"),
        ({"preset": "mine"}, "preset mine"),
        ({}, "folder runs/b"),
    ],
)
def test_runs_that_would_share_a_cell_are_told_apart(changes, detail):
    found = grid.arrange([evaluation(row()), evaluation(row(**changes), folder="runs/b")])
    assert len(found.lines) == 2 and found.lines[1].detail == detail
    assert all(line.cells[0] for line in found.lines)


def test_headings_name_what_makes_them_unique():
    rows = [row(), row(benchmark="other"), row(judge="second"), row(subset="figs")]
    found = grid.arrange([evaluation(*rows)])
    assert [found.heading(c) for c in found.columns] == [
        "unsafe picture, vlguard, judge keyword_vlguard_v1",
        "unsafe picture, other",
        "unsafe picture, vlguard, judge second",
        "figs",
    ]


def test_different_denominators_are_told():
    found = grid.arrange([evaluation(row()), evaluation(row(model="hound", n=20, first_n=20), folder="b")])
    (column,) = found.columns
    assert column.n == 0
    assert [grid.marks(line.cells[0], column) for line in found.lines] == [["n = 442"], ["n = 20", "first 20 only"]]


def test_what_was_left_out_is_told_in_every_format():
    rows = [row(), row(subset="safe_safes", metric="refusal_rate", n=440, n_bad_picture=2, n_too_long=1)]
    found = grid.arrange([evaluation(*rows)])
    marks = "(1 too long, left out) (2 with unreadable pictures, left out)"
    assert f"| 72.6 [68.2, 76.6] {marks} |" in grid.markdown(found)
    assert f"72.6 {{\\scriptsize [68.2, 76.6] {marks}}}" in grid_latex.latex(found)


def test_markdown():
    found = grid.arrange(
        [evaluation(row(), row(subset="safe_safes", metric="refusal_rate", n_invalid=3)), evaluation(row(model="a|b"))]
    )
    headings, rule, fox, other = grid.markdown(found).splitlines()[:4]
    assert headings.startswith(
        "| model | harmful requests answered ↓: unsafe picture (n = 442) | harmless questions refused ↓: safe"
    )
    assert rule == "| --- | ---: | ---: |"
    assert fox == "| fox | 72.6 [68.2, 76.6] | 72.6 [68.2, 76.6] (3 invalid) |"
    assert other == "| a\\|b | 72.6 [68.2, 76.6] | - |"
    assert "Wilson" in grid.markdown(found)


def test_latex_escapes_and_lines_up():
    found = grid.arrange(
        [evaluation(row(model="fox_1 & 100% {x}~\\"), row(subset="safe_safes", metric="refusal_rate", stand_in=True))]
    )
    text = grid_latex.latex(found)
    assert r"fox\_1 \& 100\% \{x\}\textasciitilde{}\textbackslash{} & 72.6 {\scriptsize [68.2, 76.6]} & -- \\" in text
    assert r"(STAND-IN)" in text and r"$\downarrow$" in text and text.isascii()
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}" and lines[3] == r"\cmidrule(lr){2-2}\cmidrule(lr){3-3}"
    assert all(line.replace(r"\&", "").count("&") == 2 for line in lines if line.endswith(r"\\"))


def test_latex_says_once_what_holds_of_all_rates():
    other = row(subset="safe_safes", metric="refusal_rate", stand_in=True, first_n=9, n=9)
    found = grid.arrange([evaluation(row(stand_in=True), other), evaluation(row(model="hound", stand_in=True))])
    text = grid_latex.latex(found)
    assert text.count("STAND-IN") == 1 and r"\multicolumn{3}{l}{\scriptsize All rates: (STAND-IN)} \\" in text
    assert text.count("first 9 only") == 1  # of one rate, in its cell
    one = grid_latex.latex(grid.arrange([evaluation(row(stand_in=True))]))
    assert r"{\scriptsize [68.2, 76.6] (STAND-IN)}" in one and "All rates" not in one
