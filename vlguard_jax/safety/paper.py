"""A measurement beside the paper's number (paper_tables.py), and the test whether it reproduces it."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from vlguard_jax import errors
from vlguard_jax import ranges
from vlguard_jax import typed
from vlguard_jax.safety import paper_tables
from vlguard_jax.safety import statistics

JUDGE = "keyword_vlguard_v1"  # what the paper's attack success rates were counted with
NEW_TOKENS, CHOICE = 256, "greedy"  # how its answers were decoded (appendix A.1)
SIGNIFICANCE = 0.05

# Column -> number of questions, of the columns that are subsets of a benchmark.
SIZES = {name: column.n for name, column in paper_tables.COLUMNS.items() if column.n and not column.subset}
NOT_REFUSED = "xstest_safe"  # the paper prints the share that is not refused; here refusals are counted


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The paper's value beside ours.

    `percent` is as printed, or 100 minus that where the paper counts what is not refused; `count` of `n` is the count
    behind it, None where no count gives it. `p` is of the exact
    two-sample test, None where none is possible; then `reproduced` is None too and `note` says why. `reproduced` is of
    this test alone; a table of several adjusts their p-values first.
    """

    row: typed.Name
    percent: Annotated[float, ranges.Range(0, 100)]
    n: typed.Count
    count: typed.Count | None
    p: typed.Fraction | None = None
    reproduced: bool | None = None
    note: typed.Name = ""

    def difference(self, count: int | float, n: int) -> tuple[float, float, float]:
        """(difference, low, high) of `count` of `n` minus the paper's rate, fractions with the 95 % interval of
        `statistics.difference`; there must be a count behind the paper's value."""
        assert self.count is not None
        return statistics.difference(count, n, self.count, self.n)


def reproduced(p: float) -> bool:
    """Whether the test of a p-value, adjusted where there are several tests, leaves the paper's rate standing."""
    return p >= SIGNIFICANCE


def check_row(row: str) -> None:
    """Raise UserError, naming the nearest known row, unless a table of the paper has this row."""
    known = paper_tables.rows()
    if paper_tables.spelt(row) not in known:
        raise errors.UserError(f"config.paper_row={row!r} is in none of the paper's tables{errors.nearest(row, known)}")


def value(row: str, column: str) -> float | None:
    """The printed percentage; None where the paper has none."""
    found = paper_tables.find(paper_tables.spelt(row), column)
    return found[1] if found else None


def count_of(percent: float, n: int, decimals: int = 2) -> int | None:
    """The count k whose 100 k / n is printed as `percent`; None where there is none: another denominator, an average
    or a misprint."""
    k = round(percent * n / 100)
    return k if round(100 * k / n, decimals) == percent else None


def compare(row: str, column: str, count: int | float, n: int, *, obstacle: str = "") -> Comparison:
    """Compare `count` of `n` with the paper's value; `obstacle` says why our side is not comparable, if it is not. A
    count that is not whole, of scores, never is.

    "Reproduced" means that Boschloo's exact test on the two counts does not reject equal rates at 0.05. The counts are
    taken as independent although both models answered the same questions: the paper gives no answers to pair with.

    Raises:
      UserError: the paper has no such row.
      ValueError: the row has no such column.
    """
    check_row(row)
    row = paper_tables.spelt(row)
    found = paper_tables.find(row, column)
    if found is None:
        raise ValueError(f"the paper has no {column} of {row}")
    table, percent = found
    size = SIZES.get(column) or paper_tables.COLUMNS[column].n
    known = None if table.read_off else count_of(percent, size, table.decimals)
    if column == NOT_REFUSED:
        percent, known = round(100 - percent, 2), None if known is None else size - known
    note = obstacle
    if not note and count != round(count):
        note = "the paper counts wins, and these are scores"
    elif table.read_off:
        note = note or f"read off a plot, to about {table.read_off:g} point"
    elif known is None:
        note = f"impossible: no count of {size} gives {percent:.{table.decimals}f} %"
    if note or known is None:
        return Comparison(row, percent, size, known, note=note)
    p = statistics.two_sample_p(round(count), n, known, size)
    return Comparison(row, percent, size, known, p, reproduced(p))
