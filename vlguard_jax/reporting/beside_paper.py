"""A table of the paper with our rates below its own, for `report --paper`: intervals, differences, and what is odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import string

from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax.reporting import alike
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import runs as runs_lib
from vlguard_jax.reporting import seeds as seeds_lib
from vlguard_jax.reporting import tables
from vlguard_jax.safety import asr
from vlguard_jax.safety import paper as paper_lib
from vlguard_jax.safety import paper_tables
from vlguard_jax.safety import rows as rows_lib
from vlguard_jax.safety import statistics
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import registry as benchmarks

ABSENT = "not measured"
IMPOSSIBLE, READ_OFF = "*", "~"
CAPTION = (
    "Percent. Ours with 95 % intervals in brackets (one run: Wilson's, wider where questions share a picture; several"
    " seeds: of the recipe's mean over seeds and items). Difference: ours minus the paper's in points, with its 95 %"
    " interval where a count stands behind the paper's value, which is of one run; p of Boschloo's exact test, adjusted"
    " by Holm for the tests of this table, of one run alone: several seeds and one run of the paper are no two samples."
    " ↓ lower is better, ↑ higher is better."
)


@dataclasses.dataclass(frozen=True)
class Ours:
    """A cell of ours, of one run or of several seeds. Fractions that count what the paper counts.

    diff: minus the paper's. diff_ci: None where no count stands behind the paper's value. p: of one run that is
    comparable, not adjusted. obstacle: why it is not, in words.
    """

    rate: float
    ci_low: float
    ci_high: float
    runs: int
    diff: float
    diff_ci: tuple[float, float] | None
    p: float | None
    obstacle: str


Cells = Mapping[str, Ours]  # by column


@dataclasses.dataclass(frozen=True)
class Beside:
    """A table of the paper, and for each of its rows our models with their cells."""

    table: paper_tables.Table
    ours: Mapping[str, Mapping[str, Cells]]  # row -> model -> cells


def check_name(name: str) -> None:
    """Raise UserError unless the paper has this table or figure; the nearest one is named."""
    if name not in paper_tables.TABLES:
        raise errors.UserError(f"--paper={name} is unknown{errors.nearest(name, paper_tables.TABLES)}")


def arrange(found: runs_lib.Runs, name: str) -> Beside:
    """Our evaluations by the rows that their `config.paper_row` names; models of one name are seeds of one arm.

    Raises:
      UserError: no such table; no evaluation names a row of it; or two of one name were not asked alike, or have the
        same weights.
    """
    check_name(name)
    table = paper_tables.TABLES[name]
    rated: dict[str, dict[str, dict[str, list[_Rated]]]] = {}
    draws = {training.folder.parent: runs_lib.draw([training]) for training in found.trainings}
    for evaluation in found.evaluations:
        row = paper_tables.spelt(evaluation.config.paper_row)
        for column, measured in _columns(evaluation, table) if row in table.rows else ():
            by_model = rated.setdefault(row, {}).setdefault(evaluation.model, {})
            one = _Rated(alike.Rated(evaluation, measured), draws.get(evaluation.folder.parent, ""))
            by_model.setdefault(column, []).append(one)
    if not rated:
        raise errors.UserError(
            f"--paper={name}: no evaluation is of it; config.paper_row names a model's row, one of"
            f" {', '.join(map(repr, table.rows))}"
        )
    ours = {
        row: {
            model: {column: _ours(table, row, model, column, ones) for column, ones in columns.items()}
            for model, columns in rated[row].items()
        }
        for row in table.rows
        if row in rated
    }
    return Beside(table, ours)


@dataclasses.dataclass(frozen=True)
class _Rated:
    """A row, and the draw of the data that its model was trained on."""

    rated: alike.Rated
    draw: str


def _columns(evaluation: runs_lib.Evaluation, table: paper_tables.Table) -> list[tuple[str, summary.Row]]:
    """(column of the table, row with its numbers), by the paper's judge where that judged, else by the first."""
    found: dict[str, list[summary.Row]] = {}
    for row in evaluation.rows:
        name = benchmarks.columns(row.benchmark).get(row.subset, row.subset)
        if row.pictures not in ("real", summary.TEXT_ONLY):
            continue
        for column in table.columns:
            of = paper_tables.COLUMNS[column]
            if of.category and of.subset == name:
                parts = [part for part in row.by_category if (part.category, part.subcategory) == (of.category, None)]
                found.setdefault(column, []).extend(_part(row, part) for part in parts)
            wanted = (of.subset or column, of.metric or row.metric, of.judge or row.judge)
            if of.n and not of.category and wanted == (name, row.metric, row.judge):
                found.setdefault(column, []).append(row)
    return [
        (column, next((row for row in rows if row.judge == paper_lib.JUDGE), rows[0]))
        for column, rows in found.items()
        if rows
    ]


def _part(row: summary.Row, part: summary.CategoryRate) -> summary.Row:
    """The row of one category."""
    return dataclasses.replace(
        row, n=part.n, count=part.count, rate=part.rate, ci_low=part.ci_low, ci_high=part.ci_high
    )


def _ours(table: paper_tables.Table, row: str, model: str, column: str, ones: Sequence[_Rated]) -> Ours:
    first = ones[0].rated.row
    alike.check_seeds(model, column, [(str(one.rated.evaluation.folder), one.rated) for one in ones])
    if len({asr.asked(one.rated.row) for one in ones}) > 1:
        raise errors.UserError(f"the seeds of {model!r} asked different numbers of {column}; evaluate them alike")
    mean = seeds_lib.over([one.rated.row for one in ones], same_items=True, draws=[one.draw for one in ones])
    rate, low, high = mean.mean, mean.ci_low, mean.ci_high
    if len(ones) == 1:
        low, high = first.ci_low, first.ci_high
    obstacle = "; ".join(dict.fromkeys(filter(None, (rows_lib.obstacle(one.rated.row, column) for one in ones))))
    untested = obstacle or "several seeds" * (len(ones) > 1)
    compared = paper_lib.compare(row, column, first.count, first.n, obstacle=untested)
    theirs = compared.percent / 100
    ci = None
    if compared.count is not None:
        theirs = compared.count / compared.n
        _, *ends = statistics.difference_of((rate, low, high), (theirs, *statistics.wilson(compared.count, compared.n)))
        ci = ends[0], ends[1]
    diff = rate - theirs
    if column == paper_lib.NOT_REFUSED:
        rate, low, high, diff = 1 - rate, 1 - high, 1 - low, 0.0 - diff
        ci = (-ci[1], -ci[0]) if ci else None
    return Ours(rate, low, high, len(ones), diff, ci, compared.p, obstacle)


def texts(found: Beside) -> tuple[list[str], list[list[str]], list[str]]:
    """(headings, lines, notes): of each model of the paper a line of its values, and two of each of ours."""
    table = found.table
    headings = ["model", "", *(_heading(paper_tables.COLUMNS[column]) for column in table.columns)]
    cells = [(r, m, c) for r, models in found.ours.items() for m, of in models.items() for c in of]
    holm = dict(zip(cells, statistics.holm([found.ours[r][m][c].p for r, m, c in cells]), strict=True))
    reasons: dict[str, str] = {}
    lines: list[list[str]] = []
    for row, values in table.rows.items():
        printed = [_printed(table, column, value) for column, value in zip(table.columns, values, strict=True)]
        lines.append([row, "paper" if row in found.ours else f"paper; {ABSENT}", *printed])
        for model, ours in found.ours.get(row, {}).items():
            seeds = max(one.runs for one in ours.values())
            name = model + (f", {seeds} seeds" if seeds > 1 else "")
            lines.append(["", name, *(_rate(ours.get(column), seeds) for column in table.columns)])
            differences = [_difference(ours.get(c), holm.get((row, model, c)), reasons) for c in table.columns]
            lines.append(["", "difference", *differences])
    notes = [f"{letter}: not comparable: {reason}." for reason, letter in reasons.items()]
    shown = "".join(cell for line in lines for cell in line[2:])
    if IMPOSSIBLE in shown:
        notes.append(f"{IMPOSSIBLE}: no count of so many questions gives the printed percentage; no interval, no test.")
    if READ_OFF in shown:
        notes.append(f"{READ_OFF}: read off a plot, to about {table.read_off:g} point; no interval, no test.")
    return headings, lines, [*notes, *table.notes]


def _heading(column: paper_tables.Column) -> str:
    arrow = grid_lib.ARROWS[grid_lib.HIGHER if column.better == "higher" else grid_lib.LOWER]
    return f"{column.title} {arrow}" + (f" (n = {column.n})" if column.n else "")


def _printed(table: paper_tables.Table, column: str, value: float | None) -> str:
    if value is None:
        return grid_lib.NONE
    n = paper_tables.COLUMNS[column].n
    text = f"{value:.{table.decimals}f}"
    if not n:
        return text
    if table.read_off:
        return f"{READ_OFF}{text}"
    return text + IMPOSSIBLE * (paper_lib.count_of(value, n, table.decimals) is None)


def _rate(ours: Ours | None, seeds: int) -> str:
    if ours is None:
        return ABSENT
    some = f" ({ours.runs} of {seeds} seeds)" if ours.runs < seeds else ""
    return f"{100 * ours.rate:.2f} [{100 * ours.ci_low:.2f}, {100 * ours.ci_high:.2f}]{some}"


def _difference(ours: Ours | None, adjusted_p: float | None, reasons: dict[str, str]) -> str:
    """The difference in points; then the verdict, or the letter of the reason why there is none."""
    if ours is None:
        return ""
    text = tables.points(ours.diff, ours.diff_ci, 2) if ours.diff_ci else f"{100 * ours.diff:+.2f}"
    if ours.obstacle:
        return f"{text} {reasons.setdefault(ours.obstacle, _letter(len(reasons)))}"
    if ours.p is None or adjusted_p is None:
        return text
    verdict = "reproduced" if paper_lib.reproduced(adjusted_p) else "not reproduced"
    return f"{text}, {tables.tested(ours.p, adjusted_p)}: {verdict}"


def _letter(i: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    letters = string.ascii_lowercase
    return letters[i] if i < len(letters) else _letter(i // len(letters) - 1) + letters[i % len(letters)]


def markdown(found: Beside) -> str:
    """The table as Markdown, with its title, caption and notes."""
    headings, lines, notes = texts(found)
    body = tables.markdown_table(headings, lines, right=True)
    listed = "".join(f"\n- {escape.markdown_item(note)}" for note in notes)
    return f"{escape.markdown(found.table.title)}\n\n{body}\n{CAPTION}\n{listed}\n"


def latex(found: Beside) -> str:
    """The table as LaTeX (package booktabs), with caption and notes as comments."""
    headings, lines, notes = texts(found)
    rows = [" & ".join(map(escape.latex, line)) + r" \\" for line in (headings, *lines)]
    return "\n".join(
        [
            r"\begin{tabular}{ll" + "r" * (len(headings) - 2) + "}",
            *(r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}"),
            *(f"% {escape.latex(text)}" for text in (found.table.title, CAPTION, *notes)),
            "",
        ]
    )
