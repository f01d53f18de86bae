"""Result rows as one grid, a line per model and a column per measure, for the page, Markdown and LaTeX alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

from vlguard_jax.reporting import alike
from vlguard_jax.reporting import runs
from vlguard_jax.reporting import tables
from vlguard_jax.safety import asked as asked_lib
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import registry

LOWER, HIGHER, NEITHER = "lower is better", "higher is better", ""
NONE = "-"  # an empty cell
STAND_IN = "STAND-IN"
ARROWS = {LOWER: "↓", HIGHER: "↑", NEITHER: ""}


@dataclasses.dataclass(frozen=True)
class Group:
    """Neighbouring columns that answer the same question."""

    title: str
    meaning: str
    direction: str


GROUPS = {
    "asr": Group(
        "harmful requests answered",
        "attack success rate (ASR): share of harmful requests that were not refused, or by a judge of harm, whose"
        " answer is harmful",
        LOWER,
    ),
    "refusal_rate": Group(
        "harmless questions refused", "over-refusal: share of harmless questions that were refused", LOWER
    ),
    "accuracy": Group(
        "harmless questions answered right",
        "accuracy: share of harmless questions with exactly the expected answer",
        HIGHER,
    ),
    "win_rate": Group("preferred answers", "win rate: how often a judge prefers it to a reference answer", HIGHER),
    "harm_score": Group("harm of answers", "harm score: how convincing and specific harmful answers are", LOWER),
}
CHOICES = Group(
    "right choices", "accuracy: share of questions of which the right one of several answers was chosen", HIGHER
)
CONTROL = Group(
    "control without the pictures", "the same rates where a blank was shown in the place of every picture", NEITHER
)

# What the subsets of known benchmarks ask; others go by their own names.
SUBSETS = {
    "unsafes": "unsafe picture",
    "safe_unsafes": "safe picture, unsafe request",
    "safe_safes": "safe picture, safe question",
    "text_safe": "safe text",
    "text_unsafe": "unsafe text",
    "text_suffix": "unsafe text with a suffix that asks to comply",
    "advbench_vanilla": "AdvBench",
    "advbench_suffix": "AdvBench with a suffix",
    "advbench_suffix_start": "AdvBench with the other suffix",
    "xstest_safe": "XSTest, safe",
    "xstest_unsafe": "XSTest, unsafe",
    "figstep": "FigStep",
    "strongreject": "StrongREJECT",
    "siuo_mcq": "SIUO",
}
SHORT = {"asr": "ASR", "refusal_rate": "refusals", "accuracy": "accuracy", "win_rate": "win rate"}

# Fields that may tell two runs of one model apart, the likeliest first.
SPLITTERS = ("seed", "template", "preprocessing", "preset", "decode", "folder")


@dataclasses.dataclass(frozen=True)
class Column:
    """One measure. `n` is the number of questions, 0 where it differs between the models; `version` is the judge's."""

    benchmark: str
    subset: str
    metric: str
    judge: str
    pictures: str
    n: int = 0
    version: str = ""

    @property
    def control(self) -> bool:
        """Whether the pictures were replaced by blanks or left out."""
        return self.pictures not in ("real", summary.TEXT_ONLY)

    @property
    def group(self) -> Group:
        """The group of this column."""
        if self.control:
            return CONTROL
        if self.metric == "accuracy" and _only_choices(self.benchmark, self.subset):
            return CHOICES
        return GROUPS.get(self.metric, Group(self.metric.replace("_", " "), "", NEITHER))


def _only_choices(benchmark: str, subset: str) -> bool:
    """Whether a subset is read for right answers alone: it need not be one of harmless questions."""
    known = registry.BENCHMARKS.get(benchmark)
    return known is not None and known.metrics.get(subset) == "accuracy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A rate with its 95 % interval, as fractions, and what a reader must know about it.

    Attributes:
      n: questions; per seed where the rate is a mean over seeds.
      n_answers: answers behind the rate, of all seeds; `n_cut` and `n_invalid` are counts of them.
      n_too_long, n_bad_picture, first_n, part, stand_in: as in `summary.Row`.
      per_seed: rates of the seeds of a mean.
      seeds: number of seeds in the mean, in words, where some are missing.
      rated: the row that is shown, with its evaluation; None for a mean.
    """

    rate: float
    ci_low: float
    ci_high: float
    n: int
    n_answers: int
    n_cut: int = 0
    n_invalid: int = 0
    n_too_long: int = 0
    n_bad_picture: int = 0
    first_n: int | None = None
    part: str = "first"
    stand_in: bool = False
    per_seed: tuple[float, ...] = ()
    seeds: str = ""
    rated: alike.Rated | None = None


@dataclasses.dataclass(frozen=True)
class Line:
    """One model: its name, what tells it from others of this name, and a cell or None per column."""

    model: str
    detail: str
    cells: tuple[Cell | None, ...]

    @property
    def label(self) -> str:
        """Name and detail in one."""
        return f"{self.model} ({self.detail})" if self.detail else self.model


@dataclasses.dataclass(frozen=True)
class Grid:
    """Lines in the order of the evaluations, columns by group."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    @property
    def groups(self) -> list[tuple[Group, int]]:
        """(group, number of columns) from left to right."""
        found: list[tuple[Group, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found

    def heading(self, column: Column) -> str:
        """The column's name below its group's: subset, and whatever else makes it unique."""
        parts = [SUBSETS.get(column.subset, column.subset)]
        if len({c.benchmark for c in self.columns if c.subset == column.subset}) > 1:
            parts.append(column.benchmark)
        if column.control:
            parts += [f"shown {column.pictures}", SHORT.get(column.metric, column.metric.replace("_", " "))]
        same = [
            c
            for c in self.columns
            if dataclasses.replace(c, judge=column.judge, version=column.version, n=column.n) == column
        ]
        if len(same) > 1:
            parts.append(f"judge {column.judge}")
        if len({c.version for c in same if c.judge == column.judge}) > 1:
            parts.append(f"version {column.version}")
        return ", ".join(parts)


def arrange(evaluations: Sequence[runs.Evaluation]) -> Grid:
    """Put the rows of all evaluations into one grid. No two rows ever share a cell."""
    rated = [alike.Rated(evaluation, row) for evaluation in evaluations for row in evaluation.rows]
    # dict and stable sort: order of appearance within a group
    columns = sorted({_column(one.row): None for one in rated}, key=_position)
    fields = ["model", "weights_sha256"]
    for field in SPLITTERS:
        if len({(_identity(one, fields), _column(one.row)) for one in rated}) == len(rated):
            break
        fields.append(field)
    by_line: dict[tuple[str, ...], dict[Column, alike.Rated]] = {}
    for one in rated:
        by_line.setdefault(_identity(one, fields), {})[_column(one.row)] = one
    lines = tuple(
        Line(
            identity[0],
            ", ".join(dict.fromkeys([*_detail(identity, list(by_line), fields), *way])),
            tuple(_cell(found[c]) if c in found else None for c in columns),
        )
        for (identity, found), way in zip(by_line.items(), _ways(list(by_line.values())), strict=True)
    )
    return Grid(tuple(dataclasses.replace(c, n=_count(lines, i)) for i, c in enumerate(columns)), lines)


def _cell(rated: alike.Rated) -> Cell:
    row = rated.row
    return Cell(
        rate=row.rate,
        ci_low=row.ci_low,
        ci_high=row.ci_high,
        n=row.n,
        n_answers=row.n,
        n_cut=row.n_cut,
        n_invalid=row.n_invalid,
        n_too_long=row.n_too_long,
        n_bad_picture=row.n_bad_picture,
        first_n=row.first_n,
        part=row.part,
        stand_in=row.stand_in,
        rated=rated,
    )


def _column(row: summary.Row) -> Column:
    version = " ".join(filter(None, (row.judge_version, row.judge_prompt_sha256[:8])))
    return Column(row.benchmark, row.subset, row.metric, row.judge, row.pictures, version=version)


def _position(column: Column) -> tuple[bool, int, bool, bool]:
    metrics = list(GROUPS)
    return (
        column.control,
        metrics.index(column.metric) if column.metric in metrics else len(metrics),
        column.group == CHOICES,
        column.pictures == summary.TEXT_ONLY,
    )


def _identity(rated: alike.Rated, fields: Sequence[str]) -> tuple[str, ...]:
    """The values of the row's fields and of its evaluation's folder, as text."""
    values = dataclasses.asdict(rated.row) | {"folder": rated.evaluation.folder}
    return tuple(str(values[field]) for field in fields)


def _detail(identity: tuple[str, ...], others: Sequence[tuple[str, ...]], fields: Sequence[str]) -> list[str]:
    """What distinguishes this line from others with the same model name."""
    namesakes = [other for other in others if other[0] == identity[0]]
    told = []
    for i, field in enumerate(fields[1:], 1):
        if len({other[i] for other in namesakes}) > 1:
            told.append(f"weights {identity[i][:8]}" if field == "weights_sha256" else f"{field} {identity[i]}")
    return told


def _ways(lines: Sequence[Mapping[Column, alike.Rated]]) -> list[list[str]]:
    """For each line, how its questions were asked, where others in the same columns were asked otherwise."""
    hows = [{column: asked_lib.how_of(one.row) for column, one in found.items()} for found in lines]
    wordings: dict[str, set[str]] = {}
    for how in (how for line in hows for how in line.values()):
        wordings.setdefault(how.template, set()).add(how.template_sha256)

    def value(how: asked_lib.How, name: str) -> str:
        same_name = name == "template" and len(wordings[how.template]) > 1
        return f"{how.template} {how.template_sha256[:8]}" if same_name else getattr(how, name)

    told: list[list[str]] = [[] for _ in lines]
    for name in ("template", "preprocessing", "limits", "decoding"):
        columns: dict[Column, set[str]] = {}
        for line in hows:
            for column, how in line.items():
                columns.setdefault(column, set()).add(value(how, name))
        if any(len(values) > 1 for values in columns.values()):
            for line, texts in zip(hows, told, strict=True):
                values = "/".join(sorted({value(how, name) for how in line.values()} - {""}))
                texts += [values if name in ("limits", "decoding") else f"{name} {values}"] if values else []
    return told


def _count(lines: Sequence[Line], column: int) -> int:
    counts = {cell.n for line in lines if (cell := line.cells[column])}
    return counts.pop() if len(counts) == 1 else 0


def percent(rate: float, digits: int = 1) -> str:
    """A fraction as a percentage, without the % sign."""
    return f"{100 * rate:.{digits}f}"


def marks(cell: Cell, column: Column) -> list[str]:
    """What a reader must know about a cell besides its rate."""
    found = []
    if cell.seeds:
        found.append(cell.seeds)
    if not column.n:
        found.append(f"n = {cell.n}")
    found += _left_out(cell)
    if cell.n_invalid:
        found.append(f"{cell.n_invalid} invalid")
    if tables.mostly_cut(cell.n_cut, cell.n_answers):
        found.append(f"{cell.n_cut} of {cell.n_answers} cut")
    return found + [STAND_IN] * cell.stand_in


def reservations(cell: Cell) -> list[str]:
    """Why a rate measures less than its subset: part of the questions was asked, or they are stand-ins."""
    return _left_out(cell) + [STAND_IN] * cell.stand_in


def _left_out(cell: Cell) -> list[str]:
    found = []
    if cell.first_n:
        found.append(f"{cell.part} {cell.first_n} only")
    if cell.n_too_long:
        found.append(f"{cell.n_too_long} too long, left out")
    if cell.n_bad_picture:
        found.append(f"{cell.n_bad_picture} with unreadable pictures, left out")
    return found


def texts(grid: Grid) -> tuple[list[str], list[list[str]]]:
    """(headings, lines) as plain text, rates in percent with their intervals."""
    headings = ["model"]
    for column in grid.columns:
        name = (
            grid.heading(column)
            if column.control
            else f"{column.group.title} {ARROWS[column.group.direction]}: {grid.heading(column)}"
        )
        headings.append(name + (f" (n = {column.n})" if column.n else ""))
    lines = [
        [line.label, *(_text(cell, column) for cell, column in zip(line.cells, grid.columns, strict=True))]
        for line in grid.lines
    ]
    return headings, lines


def _text(cell: Cell | None, column: Column) -> str:
    if cell is None:
        return NONE
    return " ".join([percent(cell.rate), interval(cell), *(f"({mark})" for mark in marks(cell, column))])


def interval(cell: Cell) -> str:
    return f"[{percent(cell.ci_low)}, {percent(cell.ci_high)}]"


def markdown(grid: Grid) -> str:
    """The grid as a Markdown table; intervals in brackets."""
    headings, lines = texts(grid)
    return f"{tables.markdown_table(headings, lines, right=True)}\n{CAPTION}\n"


CAPTION = (
    "Percent, with 95 % intervals (Wilson; wider where questions share a picture) in brackets; ↓ lower is better,"
    " ↑ higher is better."
)
