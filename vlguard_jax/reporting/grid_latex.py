"""The grid of a report as a LaTeX table."""

from __future__ import annotations

from collections.abc import Sequence

from vlguard_jax import escape
from vlguard_jax.reporting import grid as grid_lib


def latex(grid: grid_lib.Grid) -> str:
    """The grid as a LaTeX table (package booktabs), groups above their columns, intervals in small print below the
    rates."""
    spans, first = [], 2
    for group, width in grid.groups:
        title = escape.latex(f"{group.title} {grid_lib.ARROWS[group.direction]}".strip())
        spans.append((rf"\multicolumn{{{width}}}{{c}}{{{title}}}", rf"\cmidrule(lr){{{first}-{first + width - 1}}}"))
        first += width
    names = [escape.latex(grid.heading(c) + (f" (n = {c.n})" if c.n else "")) for c in grid.columns]
    lines = [
        r"\begin{tabular}{l" + "r" * len(grid.columns) + "}",
        r"\toprule",
        " & ".join(["", *(title for title, _ in spans)]) + r" \\",
        "".join(rule for _, rule in spans),
        " & ".join(["model", *names]) + r" \\",
        r"\midrule",
    ]
    of_all = _of_all(grid)
    for line in grid.lines:
        cells = (_latex(cell, column, of_all) for cell, column in zip(line.cells, grid.columns, strict=True))
        lines.append(" & ".join([escape.latex(line.label), *cells]) + r" \\")
    lines.append(r"\bottomrule")
    if of_all:
        told = escape.latex(" ".join(f"({mark})" for mark in of_all))
        lines.append(rf"\multicolumn{{{1 + len(grid.columns)}}}{{l}}{{\scriptsize All rates: {told}}} \\")
    return "\n".join([*lines, r"\end{tabular}", f"% {escape.latex(grid_lib.CAPTION)}", ""])


def _of_all(grid: grid_lib.Grid) -> list[str]:
    """The marks that every cell of several has, which are said once."""
    marked = [
        grid_lib.marks(cell, column)
        for line in grid.lines
        for cell, column in zip(line.cells, grid.columns, strict=True)
        if cell is not None
    ]
    return [mark for mark in marked[0] if all(mark in one for one in marked)] if len(marked) > 1 else []


def _latex(cell: grid_lib.Cell | None, column: grid_lib.Column, of_all: Sequence[str]) -> str:
    if cell is None:
        return "--"
    own = (f"({mark})" for mark in grid_lib.marks(cell, column) if mark not in of_all)
    small = escape.latex(" ".join([grid_lib.interval(cell), *own])).removeprefix("{}")
    return rf"{grid_lib.percent(cell.rate)} {{\scriptsize {small}}}"
