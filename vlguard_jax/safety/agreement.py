"""How far raters agree, judges and people alike: Cohen's kappa of two, Krippendorff's alpha of any number.

Labels are names without an order (nominal). An answer that a rater did not label is missing for that rater alone.

Alpha is 1 - Do / De: the disagreement within answers over that between all labels. With m labels on an answer, n_c of
them c, and N, N_c those of all answers with two labels or more (Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability", section C),

    Do = sum over answers of (m^2 - sum of n_c^2) / (m - 1) / N,    De = (N^2 - sum of N_c^2) / (N (N - 1)).

Own lines, as the one kept library is under another kind of licence and resamples one by one; it is an oracle of the
tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
from typing import NamedTuple

import numpy as np

from vlguard_jax.safety import statistics

LABELS = ("refuse", "partial", "comply")  # of an answer, in the order of tables
RESAMPLES = 2000
ROUNDING = 1e-6  # of an interval's width: the root of a variance of 0
AT_ONCE = 1 << 22  # numbers of one block of resamples


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two raters on the answers that both labelled. `counts`: (label of a, label of b) -> answers."""

    a: str
    b: str
    counts: Mapping[tuple[str, str], int]

    @property
    def n(self) -> int:
        """Answers that both labelled."""
        return sum(self.counts.values())

    @property
    def same(self) -> int:
        """Answers to which both gave one label."""
        return sum(count for (a, b), count in self.counts.items() if a == b)

    @property
    def labels(self) -> tuple[str, ...]:
        """Those that occur, in the order of LABELS."""
        used = {label for pair in self.counts for label in pair}
        return tuple(label for label in LABELS if label in used)

    @property
    def table(self) -> list[list[int]]:
        """[labels of a, labels of b] counts."""
        return [[self.counts.get((a, b), 0) for b in self.labels] for a in self.labels]

    @property
    def kappa(self) -> Interval | None:
        """See the function `kappa`; None where a rater says the same of all."""
        return kappa(self.table)

    def merged(self, label: str, into: str) -> Pair:
        """The same with one label counted as another."""
        found: Counter[tuple[str, str]] = Counter()
        for (a, b), count in self.counts.items():
            found[into if a == label else a, into if b == label else b] += count
        return Pair(self.a, self.b, found)


def pair(a: str, b: str, labels_a: Mapping[str, str], labels_b: Mapping[str, str]) -> Pair:
    """Two raters by name, each with answer -> label."""
    return Pair(a, b, Counter((labels_a[key], labels_b[key]) for key in labels_a if key in labels_b))


def kappa(table: Sequence[Sequence[int]]) -> Interval | None:
    """Cohen's (1960) kappa of a square table of counts; None without any, or where a rater says the same of all: its
    agreement is that of chance whatever the other says, so a kappa of 0 would say nothing of either.

    Interval: Fleiss, Cohen and Everitt's (1969) for independent answers. They leave it without width where no answer is
    judged differently, and where all are and the raters' labels are as frequent; then it reaches as far down, or up, as
    Wilson's interval of the share that is judged alike.
    """
    from statsmodels.stats import inter_rater

    counts = np.asarray(table, float)
    n = counts.sum()
    if not n:
        return None
    if n in counts.sum(0) or n in counts.sum(1):
        return None
    chance = float(counts.sum(0) @ counts.sum(1) / n**2)
    if counts.trace() == n:
        least, _ = statistics.wilson(n, n)
        return Interval(1.0, max(-1.0, (least - chance) / (1 - chance)), 1.0)
    used = (counts.sum(0) + counts.sum(1)) > 0  # a label that nobody gave leaves nothing to divide by
    with np.errstate(invalid="ignore", divide="ignore"):  # the variance can be 0, or rounded below
        found = inter_rater.cohens_kappa(counts[used][:, used])
    value = float(found.kappa)
    ends = (value if math.isnan(end) else float(end) for end in (found.kappa_low, found.kappa_upp))
    low, high = (min(1.0, max(-1.0, end)) for end in ends)
    if not counts.trace() and high - low < ROUNDING:
        _, most = statistics.wilson(0, n)
        high = (most - chance) / (1 - chance)
    return Interval(value, min(low, value), high)


@dataclasses.dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha.

    Attributes:
      answers, labels: those with two labels or more, and the labels on these.
      same: answers of these on which all labels are the same.
      interval: None where no answer has two labels, or all labels are the same.
    """

    answers: int
    labels: int
    same: int
    interval: Interval | None


def alpha(raters: Iterable[Mapping[str, str]], seed: int = 0) -> Alpha:
    """Krippendorff's alpha of raters, each with answer -> label.

    Interval: percentiles of RESAMPLES of as many answers, drawn with replacement, as if answers were independent; where
    no answer is judged differently it reaches down to the alpha of as large a share as Wilson's interval allows, and
    where every one is, up to that. A rater that says the same of all leaves alpha a value, of 0 or less with one other.
    """
    said: dict[str, Counter[str]] = {}
    for rater in raters:
        for key, label in rater.items():
            said.setdefault(key, Counter())[label] += 1
    names = sorted({label for counted in said.values() for label in counted})
    rows = [[counted[name] for name in names] for counted in said.values() if counted.total() > 1]
    counts = np.asarray(rows, float).reshape(len(rows), len(names))
    of = counts.sum(1)
    different = (of**2 - (counts**2).sum(1)) / (of - 1)
    same, whole = int((different == 0).sum()), np.ones((1, len(rows)))
    value = float(_alphas(whole, different, counts)[0])
    if math.isnan(value):
        return Alpha(len(rows), int(of.sum()), same, None)
    if same == len(rows):
        _, most = statistics.wilson(0, len(rows))
        expected = 1 - float((counts.sum(0) ** 2).sum() - of.sum()) / (of.sum() * (of.sum() - 1))
        # every answer of the share that may be judged differently counts in full
        low, high = max(-1.0, 1 - most / expected), 1.0
    else:
        low, high = _percentiles(different, counts, seed)
        if not same:
            least, _ = statistics.wilson(len(rows), len(rows))
            high = max(high, 1 - least * (1 - value))
    return Alpha(len(rows), int(of.sum()), same, Interval(value, min(low, value), max(high, value)))


def _alphas(times: np.ndarray, different: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """f64[R]: alpha where each answer counts so many `times`, f64[R, answers]; NaN where all labels are the same."""
    labels = times @ counts
    total = labels.sum(1)
    expected = total**2 - (labels**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - (total - 1) * (times @ different) / expected, np.nan)


def _percentiles(different: np.ndarray, counts: np.ndarray, seed: int) -> tuple[float, float]:
    answers, random = len(counts), np.random.default_rng(seed)
    block = max(1, AT_ONCE // answers)
    found: list[np.ndarray] = []
    for start in range(0, RESAMPLES, block):
        times = random.multinomial(answers, np.full(answers, 1 / answers), size=min(block, RESAMPLES - start))
        found.append(_alphas(times.astype(float), different, counts))
    # a sample in which all labels are the same says nothing about chance
    values = np.concatenate(found)
    low, high = np.percentile(values[~np.isnan(values)], [2.5, 97.5])
    return float(low), float(high)


def majority(said: Iterable[str]) -> str | None:
    """The label that more raters gave than any other; None where several are given as often, or none is."""
    counted = Counter(said).most_common(2)
    if not counted or (len(counted) == 2 and counted[0][1] == counted[1][1]):
        return None
    return counted[0][0]
