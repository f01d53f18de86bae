"""The probes of training runs for the page: curves of their rates with intervals, and a table."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from vlguard_jax.reporting import charts
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.safety import probes


@dataclasses.dataclass(frozen=True)
class Probed:
    """One training run with probes. rates: their names, in the order of the charts' styles; table: of the first, the
    last and the best probe; stand_in: whether a picture was drawn by `prepare`; changed: whether rates are not drawn,
    since they were measured otherwise than later ones."""

    name: str
    rates: tuple[str, ...]
    charts: tuple[charts.Rates, ...]
    table: provenance.Table
    stand_in: bool
    changed: bool


def show(trainings: Sequence[runs.Training]) -> list[Probed]:
    """The runs that have probes."""
    return [_probed(training) for training in trainings if training.probes]


def _probed(training: runs.Training) -> Probed:
    names = tuple(dict.fromkeys(rate.name for probe in training.probes for rate in probe.rates))
    of = probes.comparable(training.probes)
    series = [
        [(p.step, rate.rate, rate.ci_low, rate.ci_high) for p in training.probes if (rate := of(p, name))]
        for name in names
    ]
    return Probed(
        training.name,
        names,
        tuple(charts.rates(series, size) for size in charts.SIZES),
        _table(training, names),
        any(rate.stand_in for probe in training.probes for rate in probe.rates),
        any(of(probe, rate.name) is None for probe in training.probes for rate in probe.rates),
    )


def _table(training: runs.Training, names: Sequence[str]) -> provenance.Table:
    kept = training.config.run.keep_best
    shown = [("first", training.probes[0]), ("last", training.probes[-1])]
    if kept.rate and (best := probes.best(kept, training.probes)):
        guard = f" with {kept.guard} of {grid.percent(kept.at_most)} % at most" if kept.guard else ""
        shown.append((f"best by {kept.rate}{guard}", best))
    headings = ("rate, %", "n", *(f"{what}: update {probe.step:,}" for what, probe in shown))
    lines, of = [], probes.comparable(training.probes)
    for name in names:
        found = [probe.rate(name) for _, probe in shown]
        n = next((f"{rate.n:,}" for rate in reversed(found) if rate), grid.NONE)
        cells = (_cell(rate, of(probe, name)) for rate, (_, probe) in zip(found, shown, strict=True))
        lines.append((name, n, *cells))
    return provenance.Table(headings, tuple(lines))


def _cell(rate: probes.Rate | None, comparable: probes.Rate | None) -> str:
    if rate is None:
        return grid.NONE
    text = f"{grid.percent(rate.rate)} ({grid.percent(rate.ci_low)} to {grid.percent(rate.ci_high)})"
    text += f", {rate.n_invalid:,} invalid" if rate.n_invalid else ""
    text += f", {rate.n_cut:,} cut" if rate.n_cut else ""
    return text if comparable else f"{text}, measured otherwise (n = {rate.n:,})"
