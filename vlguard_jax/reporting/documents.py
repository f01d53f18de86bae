"""The report's tables for a paper: rates, differences with their tests, and categories, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from vlguard_jax import escape
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.reporting import tables


def markdown(grid: grid_lib.Grid, evaluations: Sequence[runs.Evaluation]) -> str:
    """The grid, and below it the other tables that the rows fill."""
    text = grid_lib.markdown(grid)
    for caption, found in _besides(grid, evaluations):
        text += f"\n{tables.markdown_table(found.headings, found.lines)}\n{caption}\n"
    return text


def latex(grid: grid_lib.Grid, evaluations: Sequence[runs.Evaluation]) -> str:
    """The same with the package booktabs, one tabular a table."""
    text = grid_lib.latex(grid)
    for caption, found in _besides(grid, evaluations):
        lines = [" & ".join(map(escape.latex, line)) + r" \\" for line in (found.headings, *found.lines)]
        begin = [r"\begin{tabular}{" + "l" * len(found.headings) + "}", r"\toprule", lines[0], r"\midrule"]
        text += "\n" + "\n".join(
            [*begin, *lines[1:], r"\bottomrule", r"\end{tabular}", f"% {escape.latex(caption)}", ""]
        )
    return text


def _besides(grid: grid_lib.Grid, evaluations: Sequence[runs.Evaluation]) -> list[tuple[str, provenance.Table]]:
    """(caption, table) of the tables that have a line."""
    found = [
        (provenance.COMPARISONS, provenance.comparisons(grid, evaluations)),
        (provenance.CATEGORIES, provenance.categories(grid)),
    ]
    return [(caption, table) for caption, table in found if table.lines]
