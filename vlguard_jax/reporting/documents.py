"""The report's tables for a paper: rates, differences with their tests, and categories, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from vlguard_jax import escape
from vlguard_jax.reporting import calibrated
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.reporting import tables


def markdown(
    grid: grid_lib.Grid,
    evaluations: Sequence[runs.Evaluation],
    calibration: calibrated.Calibration | None = None,
) -> str:
    """The grid, and below it the other tables that the rows fill, and those of a calibration with its notes."""
    text = grid_lib.markdown(grid)
    for caption, found in _besides(grid, evaluations, calibration):
        text += f"\n{tables.markdown_table(found.headings, found.lines)}\n{caption}\n"
    notes = calibration.notes if calibration else ()
    return text + "".join(f"\n- {escape.markdown_item(note)}" for note in notes) + "\n" * bool(notes)


def latex(
    grid: grid_lib.Grid,
    evaluations: Sequence[runs.Evaluation],
    calibration: calibrated.Calibration | None = None,
) -> str:
    """The same with the package booktabs, one tabular a table."""
    text = grid_lib.latex(grid)
    for caption, found in _besides(grid, evaluations, calibration):
        lines = [" & ".join(map(escape.latex, line)) + r" \\" for line in (found.headings, *found.lines)]
        begin = [r"\begin{tabular}{" + "l" * len(found.headings) + "}", r"\toprule", lines[0], r"\midrule"]
        text += "\n" + "\n".join(
            [*begin, *lines[1:], r"\bottomrule", r"\end{tabular}", f"% {escape.latex(caption)}", ""]
        )
    notes = calibration.notes if calibration else ()
    return text + "".join(f"% {escape.latex(note)}\n" for note in notes)


def _besides(
    grid: grid_lib.Grid, evaluations: Sequence[runs.Evaluation], calibration: calibrated.Calibration | None
) -> list[tuple[str, provenance.Table]]:
    """(caption, table) of the tables that have a line."""
    found = [
        (provenance.COMPARISONS, provenance.comparisons(grid, evaluations)),
        (provenance.CATEGORIES, provenance.categories(grid)),
        *(calibration.tables if calibration else ()),
    ]
    return [(caption, table) for caption, table in found if table.lines]
