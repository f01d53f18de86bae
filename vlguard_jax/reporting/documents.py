"""The report's tables for a paper: rates, differences with their tests, and categories, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import terminal
from vlguard_jax.reporting import beside_paper
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import grid_latex
from vlguard_jax.reporting import page
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.reporting import tables


def markdown(
    grid: grid_lib.Grid,
    evaluations: Sequence[runs.Evaluation],
    sections: Sequence[provenance.Section] = (),
) -> str:
    """The grid, and below it the other tables that the rows fill, and those of sections with their notes."""
    text = grid_lib.markdown(grid)
    for caption, found in _besides(grid, evaluations, sections):
        text += f"\n{tables.markdown_table(found.headings, found.lines)}\n{caption}\n"
    notes = [note for section in sections for note in section.notes]
    return text + "".join(f"\n- {escape.markdown_item(note)}" for note in notes) + "\n" * bool(notes)


def latex(
    grid: grid_lib.Grid,
    evaluations: Sequence[runs.Evaluation],
    sections: Sequence[provenance.Section] = (),
) -> str:
    """The same with the package booktabs, one tabular a table."""
    text = grid_latex.latex(grid)
    for caption, found in _besides(grid, evaluations, sections):
        lines = [" & ".join(map(escape.latex, line)) + r" \\" for line in (found.headings, *found.lines)]
        begin = [r"\begin{tabular}{" + "l" * len(found.headings) + "}", r"\toprule", lines[0], r"\midrule"]
        text += "\n" + "\n".join(
            [*begin, *lines[1:], r"\bottomrule", r"\end{tabular}", f"% {escape.latex(caption)}", ""]
        )
    notes = [note for section in sections for note in section.notes]
    return text + "".join(f"% {escape.latex(note)}\n" for note in notes)


def save(
    markdown_to: str,
    latex_to: str,
    grid: grid_lib.Grid,
    evaluations: Sequence[runs.Evaluation],
    sections: Sequence[provenance.Section],
    beside: beside_paper.Beside | None,
    where: str,
) -> None:
    """Write the tables to the files that flags of these names give, "" for none: those of the runs, or `beside` alone.
    `where`: the folders, for messages.

    Raises:
      UserError: there is no evaluation, or a file cannot be written.
    """
    for flag, path, as_text, as_beside in (
        ("markdown", markdown_to, markdown, beside_paper.markdown),
        ("latex", latex_to, latex, beside_paper.latex),
    ):
        if not path:
            continue
        if beside is None and not grid.lines:
            raise errors.UserError(f"--{flag}: there is no evaluation in {where}, so there is no table")
        text = as_beside(beside) if beside else as_text(grid, evaluations, sections)
        page.save(Path(path), text)
        terminal.say(f"wrote {path}")


def _besides(
    grid: grid_lib.Grid, evaluations: Sequence[runs.Evaluation], sections: Sequence[provenance.Section]
) -> list[tuple[str, provenance.Table]]:
    """(caption, table) of the tables that have a line."""
    found = [
        (provenance.COMPARISONS, provenance.comparisons(grid, evaluations)),
        (provenance.CATEGORIES, provenance.categories(grid)),
        *(pair for section in sections for pair in section.tables),
    ]
    return [(caption, table) for caption, table in found if table.lines]
