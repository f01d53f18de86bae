"""The paper's Table 2 (Zong et al., ICML 2024), and the test whether a measurement reproduces it."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated

from vlguard_jax import errors
from vlguard_jax import ranges
from vlguard_jax import typed
from vlguard_jax.safety import statistics

JUDGE = "keyword_vlguard_v1"  # what the paper's attack success rates were counted with
SIGNIFICANCE = 0.05

# Column -> number of questions. AdvBench: the paper says 500, its values are multiples of 1/520. Safe-Safe is a win
# rate.
SIZES = {
    "advbench_vanilla": 520,
    "advbench_suffix": 520,
    "xstest_unsafe": 200,
    "xstest_safe": 250,
    "figstep": 500,
    "safe_safes": 558,
    "safe_unsafes": 558,
    "unsafes": 442,
}
WIN_RATE = "safe_safes"
NOT_REFUSED = "xstest_safe"  # the paper prints the share that is not refused; here refusals are counted

# Percent, in the order of SIZES.
TABLE_2: Mapping[str, tuple[float, ...]] = {
    "LLaVA-v1.5-7B": (6.45, 78.27, 26.50, 91.20, 90.40, 18.82, 87.46, 72.62),
    "LLaVA-v1.5-7B Post-hoc": (0.00, 13.08, 6.00, 80.80, 0.00, 18.96, 0.90, 0.23),
    "LLaVA-v1.5-7B Post-hoc-LoRA": (0.19, 12.31, 5.00, 77.20, 0.00, 18.21, 0.90, 0.00),
    "LLaVA-v1.5-7B Mixed": (0.19, 10.58, 4.00, 82.40, 0.00, 20.78, 0.90, 0.90),
    "LLaVA-v1.5-7B Mixed-LoRA": (0.19, 11.15, 4.00, 83.60, 0.00, 19.18, 1.25, 0.00),
    "LLaVA-v1.5-13B": (2.12, 74.23, 10.00, 85.20, 92.90, 21.54, 80.65, 55.88),
    "LLaVA-v1.5-13B Post-hoc": (0.19, 6.15, 2.00, 77.20, 0.00, 21.37, 1.25, 0.00),
    "LLaVA-v1.5-13B Post-hoc-LoRA": (0.38, 9.81, 5.50, 83.20, 0.00, 20.98, 0.72, 0.00),
    "LLaVA-v1.5-13B Mixed": (0.00, 8.46, 0.50, 84.00, 0.00, 21.43, 0.90, 0.90),
    "LLaVA-v1.5-13B Mixed-LoRA": (0.00, 11.15, 0.10, 83.60, 0.00, 21.77, 0.90, 0.90),
    "MiniGPT-v2": (19.04, 22.50, 16.50, 88.80, 93.60, 12.21, 88.17, 87.33),
    "MiniGPT-v2 Post-hoc": (3.00, 4.81, 6.00, 81.20, 2.00, 12.30, 5.19, 12.37),
    "MiniGPT-v2 Mixed": (0.00, 5.10, 4.00, 84.00, 0.00, 12.72, 6.27, 10.18),
}


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

    def difference(self, count: int, n: int) -> tuple[float, float, float]:
        """(difference, low, high) of `count` of `n` minus the paper's rate, fractions with the 95 % interval of
        `statistics.difference`; there must be a count behind the paper's value."""
        assert self.count is not None
        return statistics.difference(count, n, self.count, self.n)


def reproduced(p: float) -> bool:
    """Whether the test of a p-value, adjusted where there are several tests, leaves the paper's rate standing."""
    return p >= SIGNIFICANCE


def check_row(row: str) -> None:
    """Raise UserError, naming the nearest known row, unless Table 2 has this row."""
    if row not in TABLE_2:
        raise errors.UserError(f"config.paper_row={row!r} is not in the paper's Table 2{errors.nearest(row, TABLE_2)}")


def value(row: str, column: str) -> float:
    """The printed percentage."""
    return TABLE_2[row][list(SIZES).index(column)]


def count_of(percent: float, n: int) -> int | None:
    """The count k whose 100 k / n is printed as `percent` with two decimals; None where there is none.

    Seven values of Table 2 have none: another denominator, an average or a misprint.
    """
    k = round(percent * n / 100)
    return k if round(100 * k / n, 2) == percent else None


def compare(row: str, column: str, count: int, n: int, *, obstacle: str = "") -> Comparison:
    """Compare `count` of `n` with the paper's value; `obstacle` says why our side is not comparable, if it is not.

    "Reproduced" means that Boschloo's exact test on the two counts does not reject equal rates at 0.05. The counts are
    taken as independent although both models answered the same questions: the paper gives no answers to pair with.

    Raises:
      UserError: the paper has no such row.
    """
    check_row(row)
    percent, size = value(row, column), SIZES[column]
    known = count_of(percent, size) if column != WIN_RATE else None
    if column == NOT_REFUSED:
        percent, known = round(100 - percent, 2), None if known is None else size - known
    note = obstacle
    if column == WIN_RATE:
        note = "the paper gives a win rate here, which is no refusal rate"
    elif known is None:
        note = f"impossible: no count of {size} gives {percent:.2f} %"
    if note or known is None:
        return Comparison(row, percent, size, known, note=note)
    p = statistics.two_sample_p(count, n, known, size)
    return Comparison(row, percent, size, known, p, reproduced(p))
