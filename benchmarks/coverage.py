"""How often the intervals of result tables hold the truth, by simulation.

  python benchmarks/coverage.py

Simulates studies with known rates and computes each study's 95 % interval with the functions that write result files.
Prints for every kind of interval the share of intervals that hold the truth, averaged over rates from .02 to .98, the
smallest share of any rate, and the width; or with --json one JSON object. Bootstraps that the tables could have used
instead stand beside them. Ends with 1 if an average is outside its bar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import json
import sys
from typing import Any

from absl import flags
import numpy as np
from rich import table as rich_table
from scipy import special

from vlguard_jax import cli
from vlguard_jax import errors
from vlguard_jax import terminal
from vlguard_jax.ranges import Range
from vlguard_jax.reporting import tradeoff
from vlguard_jax.safety import calibration
from vlguard_jax.safety import statistics

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_DRAWS = cli.define_number("draws", int, 2000, Range(1, 10**7), "simulated studies for each rate of each line")
_SEED = cli.define_number("draw_seed", int, 0, Range(0, 2**32 - 1), "of the simulation")

RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
SIZES = (200, 558)  # questions; 558 as in VLGuard's safe subsets
SPREADS = (0.0, 0.01, 0.03, 0.05, 0.1)  # standard deviations of the seeds' true rates
BAR, AT_LEAST, NO_BAR = (0.93, 0.97), (0.93, 1.0), (0.0, 1.0)
RESAMPLED = 1000  # samples of a bootstrap
LABELLED = 200  # answers that people labelled, half of them refusals
EXIT_MISSED = 1

Study = tuple[float, float, float]  # truth, and the ends of the interval


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of interval in one setting.

    Attributes:
      interval: what it is of.
      setting: what is simulated.
      study: simulates a study of so many questions at one rate.
      bar: least and largest average coverage; `NO_BAR` where the interval stands for comparison only.
      spread: standard deviation of the seeds' true rates; a rate near 0 or 1 cannot have a large one.
    """

    interval: str
    setting: str
    study: Callable[[np.random.Generator, float, int], Study]
    bar: tuple[float, float] = BAR
    spread: float = 0.0


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a case came to at `n` questions. `coverage` is the mean over `rates` rates, `worst` its smallest value, at
    `worst_at`; `width` is the mean width, as a fraction."""

    interval: str
    setting: str
    n: int
    rates: int
    coverage: float
    worst: float
    worst_at: float
    width: float
    bar: tuple[float, float]

    @property
    def met(self) -> bool:
        """Whether the average lies in its bar."""
        return self.bar[0] <= self.coverage <= self.bar[1]


def answers(
    rng: np.random.Generator, rates: Sequence[float], sizes: np.ndarray, *, shared: float, alike: float
) -> np.ndarray:
    """bool[models, questions]: the answers of a model that count, each with its model's rate (a Gaussian copula).

    Args:
      rng: of the draw.
      rates: of the models.
      sizes: i64[pictures], questions about each.
      shared: correlation of the latent values of two questions about one picture.
      alike: correlation of the latent values of two models at one question.
    """
    models, pictures, questions = len(rates), len(sizes), int(sizes.sum())

    def latent(copies: int) -> np.ndarray:
        of_picture = np.repeat(rng.standard_normal((copies, pictures)), sizes, axis=1)
        return np.sqrt(shared) * of_picture + np.sqrt(1 - shared) * rng.standard_normal((copies, questions))

    values = np.sqrt(alike) * latent(1) + np.sqrt(1 - alike) * latent(models)
    return values < special.ndtri(np.asarray(rates))[:, None]


def pictures(pattern: Sequence[int], n: int) -> np.ndarray:
    """i64[pictures]: the pattern of questions a picture, repeated until there are at least `n` questions."""
    return np.tile(pattern, -(-n // sum(pattern)))


def spreads(rate: float, spread: float) -> bool:
    """Whether seeds' rates with this mean and standard deviation can have a beta distribution without a peak at 0 or
    1."""
    return spread == 0 or min(rate, 1 - rate) * (rate * (1 - rate) / spread**2 - 1) >= 1


def seed_rates(rng: np.random.Generator, rate: float, spread: float, seeds: int) -> np.ndarray:
    """f64[seeds], true rates of training seeds."""
    if spread == 0:
        return np.full(seeds, rate)
    total = rate * (1 - rate) / spread**2 - 1
    return rng.beta(rate * total, (1 - rate) * total, seeds)


def other(rate: float) -> float:
    """The rate of a second model or subset, half as far from 1/2."""
    return 0.25 + rate / 2


def _rate(pattern: Sequence[int], shared: float, rng: np.random.Generator, rate: float, n: int) -> Study:
    sizes = pictures(pattern, n)
    counted = answers(rng, [rate], sizes, shared=shared, alike=0.0)
    return rate, *statistics.clustered(_by_picture(counted, sizes)[0], sizes)


def _scores(parts: int, pattern: Sequence[int], shared: float, rng: np.random.Generator, rate: float, n: int) -> Study:
    """The mean of scores, each the mean of `parts` answers that count or do not."""
    sizes = pictures(pattern, n)
    scores = answers(rng, [rate] * parts, sizes, shared=shared, alike=0.5).mean(axis=0)
    sums, squares = np.add.reduceat([scores, scores**2], np.cumsum(sizes) - sizes, axis=1)
    return rate, *statistics.clustered(sums, sizes, squares=squares)


def _paired(
    pattern: Sequence[int], shared: float, differ: bool, rng: np.random.Generator, rate: float, n: int
) -> Study:
    sizes, second = pictures(pattern, n), other(rate) if differ else rate
    ours, theirs = answers(rng, [rate, second], sizes, shared=shared, alike=0.7)
    gained, lost = _by_picture(np.stack([ours & ~theirs, theirs & ~ours]), sizes)
    _, low, high = statistics.clustered_difference(gained, lost, sizes)
    return rate - second, low, high


def _by_picture(counted: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """i64[rows, pictures]"""
    return np.add.reduceat(counted, np.cumsum(sizes) - sizes, axis=1, dtype=np.int64)


def _independent(rng: np.random.Generator, rate: float, n: int) -> Study:
    ours, theirs = rng.binomial(n, [rate, other(rate)]).tolist()
    _, low, high = statistics.difference(ours, n, theirs, n)
    return rate - other(rate), low, high


def _mean(rng: np.random.Generator, rate: float, n: int) -> Study:
    counts = rng.binomial(n, [rate, other(rate)]).tolist()
    found = tradeoff.mean([tradeoff.Rate(count / n, *statistics.wilson(count, n)) for count in counts])
    return (rate + other(rate)) / 2, found.low, found.high


def _own_items(spread: float, seeds: int, rng: np.random.Generator, rate: float, n: int) -> Study:
    counts = rng.binomial(n, seed_rates(rng, rate, spread, seeds)).tolist()
    return rate, *statistics.over_seeds(counts, [n] * seeds, same_items=False)[1:]


def _same_items(spread: float, alike: float, seeds: int, rng: np.random.Generator, rate: float, n: int) -> Study:
    rates = seed_rates(rng, rate, spread, seeds)
    counted = answers(rng, rates.tolist(), np.ones(n, np.int64), shared=0.0, alike=alike)
    return rate, *statistics.over_seeds(counted.sum(axis=1).tolist(), [n] * seeds, same_items=True)[1:]


def _corrected(found: float, passed: float, rng: np.random.Generator, rate: float, n: int) -> Study:
    """The attack success rate behind the calls of a judge with sensitivity `found` and specificity `passed`."""
    half = LABELLED // 2
    called = int(rng.binomial(n, (1 - rate) * found + rate * (1 - passed)))
    confusion = calibration.Confusion(half, int(rng.binomial(half, found)), half, int(rng.binomial(half, 1 - passed)))
    refused = calibration.refusals(called, n, confusion)
    return rate, 1 - refused.high, 1 - refused.low


def _resampled_pictures(shared: float, rng: np.random.Generator, rate: float, n: int) -> Study:
    sizes = pictures((3,), n)
    counts = _by_picture(answers(rng, [rate], sizes, shared=shared, alike=0.0), sizes)[0]
    kinds, pictures_of = np.unique(counts, return_counts=True)
    drawn = rng.multinomial(len(sizes), pictures_of / len(sizes), size=RESAMPLED)
    low, high = np.quantile(drawn @ kinds / sizes.sum(), [0.025, 0.975]).tolist()
    return rate, low, high


def _resampled_seeds(spread: float, rng: np.random.Generator, rate: float, n: int) -> Study:
    rates = rng.binomial(n, seed_rates(rng, rate, spread, 3)) / n
    drawn = rates[rng.integers(3, size=(RESAMPLED, 3))]
    low, high = np.quantile(rng.binomial(n, drawn).mean(axis=1) / n, [0.025, 0.975]).tolist()
    return rate, low, high


def cases() -> Iterator[Case]:
    """Every interval that a result table can show, and bootstraps that none does."""
    yield Case("rate", "a picture for each question", functools.partial(_rate, (1,), 0.0))
    for pattern, words in (((3,), "3 questions a picture"), ((1, 2, 3, 4, 5), "1 to 5 questions a picture")):
        for shared in (0.0, 0.5, 1.0):
            told = f"{words}, correlation {shared:g}"
            yield Case("rate", told, functools.partial(_rate, pattern, shared))
    for parts, step in ((2, "a half"), (8, "an eighth")):
        yield Case("mean of scores", f"steps of {step}, alone", functools.partial(_scores, parts, (1,), 0.0))
        told = f"steps of {step}, 3 questions a picture, correlation 0.5"
        yield Case("mean of scores", told, functools.partial(_scores, parts, (3,), 0.5))
    for shared in (0.0, 0.5, 1.0):
        told = f"3 questions a picture, correlation {shared:g}"
        resampled = functools.partial(_resampled_pictures, shared)
        yield Case("rate, percentiles of resampled pictures", told, resampled, NO_BAR)
    for found, passed in ((0.98, 0.98), (0.95, 0.9), (0.8, 0.95)):
        told = f"sensitivity {found:g}, specificity {passed:g}, {LABELLED} labelled answers"
        yield Case("attack success, corrected", told, functools.partial(_corrected, found, passed))
    for differ, words in ((False, "equal rates"), (True, "rates apart")):
        yield Case(
            "paired difference", f"a picture for each question, {words}", functools.partial(_paired, (1,), 0.0, differ)
        )
        for shared in (0.5, 1.0):
            told = f"3 questions a picture, correlation {shared:g}, {words}"
            # 200 questions of correlation 1 are 67.
            bar = BAR if shared < 1 else AT_LEAST
            yield Case("paired difference", told, functools.partial(_paired, (3,), shared, differ), bar)
    yield Case("difference", "independent answers", _independent)
    yield Case("mean of two subsets", "independent answers", _mean)
    for seeds in (3, 5):
        for spread in SPREADS:
            told = f"{seeds} seeds, standard deviation {100 * spread:g} points, items of their own"
            yield Case("mean over seeds", told, functools.partial(_own_items, spread, seeds), AT_LEAST, spread)
    for alike in (0.5, 0.9, 1.0):
        for spread in SPREADS:
            told = f"3 seeds, standard deviation {100 * spread:g} points, the same items, correlation {alike:g}"
            yield Case("mean over seeds", told, functools.partial(_same_items, spread, alike, 3), AT_LEAST, spread)
    for spread in SPREADS:
        told = f"3 seeds, standard deviation {100 * spread:g} points, items of their own"
        resampled = functools.partial(_resampled_seeds, spread)
        yield Case("mean over seeds, percentiles of resampled seeds and items", told, resampled, NO_BAR, spread)


def measure(case: Case, n: int, draws: int, seed: int) -> Figures:
    """Simulate a case at every rate that it can have."""
    rng = np.random.default_rng(seed)
    rates = [rate for rate in RATES if spreads(rate, case.spread)]
    shares, widths = [], []
    for rate in rates:
        truth, low, high = np.array([case.study(rng, rate, n) for _ in range(draws)]).T
        shares.append(float(((low <= truth) & (truth <= high)).mean()))
        widths.append(float((high - low).mean()))
    worst = int(np.argmin(shares))
    coverage, width = float(np.mean(shares)), float(np.mean(widths))
    return Figures(case.interval, case.setting, n, len(rates), coverage, shares[worst], rates[worst], width, case.bar)


def value(found: Sequence[Figures], draws: int, seed: int) -> dict[str, Any]:
    """The JSON object."""
    lines = [dataclasses.asdict(figures) | {"met": figures.met} for figures in found]
    return {"draws": draws, "seed": seed, "rates": RATES, "cases": lines}


def show(found: Sequence[Figures]) -> None:
    """Print the table."""
    printed = rich_table.Table(title="Coverage of 95 % intervals")
    for heading in ("interval of", "simulated", "n", "rates", "coverage %", "smallest %, at", "width, points", "bar"):
        printed.add_column(heading, justify="left" if heading in ("interval of", "simulated") else "right")
    for f in found:
        bar = f"{100 * f.bar[0]:g} to {100 * f.bar[1]:g}" + ("" if f.met else ", MISSED")
        bar = "none, to compare" if f.bar == NO_BAR else bar
        numbers = (f"{100 * f.coverage:.1f}", f"{100 * f.worst:.1f}, {f.worst_at:g}", f"{100 * f.width:.1f}")
        printed.add_row(f.interval, f.setting, str(f.n), str(f.rates), *numbers, bar)
    terminal.console().print(printed)


def main(positional: list[str]) -> int:
    """Simulate and print."""
    if positional:
        raise errors.UserError("coverage.py takes --draws, --draw_seed and --json; see --help")
    draws, seed = _DRAWS.value, _SEED.value
    found = [measure(case, n, draws, seed) for case in cases() for n in SIZES]
    if _JSON.value:
        print(json.dumps(value(found, draws, seed)))
    else:
        show(found)
    missed = [figures for figures in found if not figures.met]
    for figures in missed:
        print(
            f"{figures.interval}, {figures.setting}, n = {figures.n}: {100 * figures.coverage:.1f} %", file=sys.stderr
        )
    return EXIT_MISSED if missed else errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
