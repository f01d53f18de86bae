"""Safety against utility: one point per model, and the page's main sentence."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.safety import summary

WORTH_A_WORD = 0.05  # rate of needless refusals


@dataclasses.dataclass(frozen=True)
class Rate:
    """A rate with its 95 % interval, fractions in [0, 1]."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Point:
    """One model."""

    label: str
    harm: Rate
    help: Rate


@dataclasses.dataclass(frozen=True)
class Tradeoff:
    """All models that have both rates; `absent` are the others.

    Harm is the share of `harmful` (what was asked, in words) that was answered, help the share of `harmless` that was
    `helped` ("answered right" or "not refused"). `subsets` are the ones that harm is the mean of.
    """

    harmful: str
    harmless: str
    helped: str
    subsets: tuple[str, ...]
    points: tuple[Point, ...]
    absent: tuple[str, ...]


def mean(rates: Sequence[Rate]) -> Rate:
    """Unweighted mean of independent rates, as the harmfulness of the paper's Figs 2-3.

    Interval: the distances of each rate to its own limits, added in squares (MOVER; Zou and Donner 2008).
    """
    value = sum(r.value for r in rates) / len(rates)
    low = math.sqrt(sum((r.value - r.low) ** 2 for r in rates)) / len(rates)
    high = math.sqrt(sum((r.high - r.value) ** 2 for r in rates)) / len(rates)
    return Rate(value, max(0.0, value - low), min(1.0, value + high))


def _rate(cell: grid_lib.Cell) -> Rate:
    return Rate(cell.rate, cell.ci_low, cell.ci_high)


def _turned(rate: Rate) -> Rate:
    return Rate(1 - rate.value, 1 - rate.high, 1 - rate.low)


def _places(grid: grid_lib.Grid, metric: str, pictures: str) -> list[int]:
    """Columns of one metric's group, of the first benchmark and the first judge (in one version) with it."""
    group = grid_lib.GROUPS[metric]
    found = [i for i, c in enumerate(grid.columns) if c.group == group and c.pictures == pictures]
    first = [grid.columns[i] for i in found[:1]]
    return [i for i in found if first and _source(grid.columns[i]) == _source(first[0])]


def _source(column: grid_lib.Column) -> tuple[str, str, str]:
    return column.benchmark, column.judge, column.version


def find(grid: grid_lib.Grid) -> Tradeoff | None:
    """Harmfulness and helpfulness with real pictures, or on text where there are none; None where one of the two is
    missing.

    Helpfulness is accuracy where every model with a harmfulness has it, else the share of harmless questions not
    refused.
    """
    for pictures in ("real", summary.TEXT_ONLY):
        harm = _places(grid, "asr", pictures)
        wanted = [line for line in grid.lines if any(line.cells[i] for i in harm)]
        for metric, name, turn in (("accuracy", "answered right", False), ("refusal_rate", "not refused", True)):
            useful = _places(grid, metric, pictures)
            complete = [line for line in wanted if all(line.cells[i] for i in [*harm, *useful])]
            if harm and useful and complete and (metric == "refusal_rate" or len(complete) == len(wanted)):
                return _tradeoff(grid, harm, useful, _asked_the_same(complete, [*harm, *useful]), name, turn)
    return None


def _asked_the_same(lines: Sequence[grid_lib.Line], places: Sequence[int]) -> list[grid_lib.Line]:
    """The lines that were asked the same questions as most: a rate of the first few is not compared with one of all."""
    asked = [
        [(cell.rated.row.n, *cell.rated.digests) for i in places if (cell := line.cells[i]) and cell.rated]
        for line in lines
    ]
    most = max(asked, key=asked.count)
    return [line for line, one in zip(lines, asked, strict=True) if one == most]


def _tradeoff(
    grid: grid_lib.Grid,
    harm: Sequence[int],
    useful: Sequence[int],
    lines: Sequence[grid_lib.Line],
    name: str,
    turn: bool,
) -> Tradeoff:
    points = []
    for line in lines:
        good = mean([_rate(cell) for i in useful if (cell := line.cells[i])])
        bad = mean([_rate(cell) for i in harm if (cell := line.cells[i])])
        points.append(Point(line.label, bad, _turned(good) if turn else good))
    with_pictures = " with pictures" if grid.columns[harm[0]].pictures == "real" else ""
    return Tradeoff(
        harmful=f"harmful requests{with_pictures}",
        harmless=f"harmless questions{with_pictures}",
        helped=name,
        subsets=tuple(grid.heading(grid.columns[i]) for i in harm),
        points=tuple(points),
        absent=tuple(line.label for line in grid.lines if line not in lines),
    )


def sentence(grid: grid_lib.Grid) -> str:
    """The main result in words, computed from the rows, with what a reader must know about these."""
    cells = [cell for line in grid.lines for cell in line.cells if cell]
    marks = dict.fromkeys(mark for cell in cells for mark in grid_lib.reservations(cell))
    told = f"Some of the rates below are not of a whole benchmark: {', '.join(marks)}." if marks else ""
    return f"{_result(grid)} {told}".strip()


def _result(grid: grid_lib.Grid) -> str:
    found = find(grid)
    if found is None:
        return _without_utility(grid)
    worst = max(found.points, key=lambda p: p.harm.value)
    best = max(found.points, key=lambda p: p.help.value - p.harm.value)
    if worst is best:
        told = f"Of the {found.harmful}, {worst.label} answered {_percent(worst.harm)}; of the {found.harmless},"
        told += f" {_percent(worst.help)} were {found.helped}."
    else:
        told = (
            f"Of the {found.harmful}, {worst.label} (the least safe) answered {_percent(worst.harm)} and"
            f" {best.label} (the best balance"
        )
        told += (
            f" of safety and help) {_percent(best.harm)}; of the {found.harmless}, {_percent(worst.help)} and"
            f" {_percent(best.help)} were"
        )
        told += f" {found.helped}."
    return f"{told} {_refusals(grid)}".strip()


def _refusals(grid: grid_lib.Grid) -> str:
    """Where over-refusal is worst, if it is worth a word."""
    places = [i for i, c in enumerate(grid.columns) if c.metric == "refusal_rate" and not c.control]
    found = [
        (_rate(cell), line.label, grid.heading(grid.columns[i]))
        for line in grid.lines
        for i in places
        if (cell := line.cells[i])
    ]
    rate, label, heading = max(found, key=lambda f: f[0].value, default=(Rate(0.0, 0.0, 0.0), "", ""))
    if rate.value < WORTH_A_WORD:
        return ""
    return f"The most needless refusals: {label}, which refused {_percent(rate)} of the harmless questions ({heading})."


def _without_utility(grid: grid_lib.Grid) -> str:
    asr = _places(grid, "asr", "real") or _places(grid, "asr", summary.TEXT_ONLY)
    lines = [line for line in grid.lines if any(line.cells[i] for i in asr)]
    lines = _asked_the_same(lines, asr) if lines else []
    rates = [(line.label, mean([_rate(cell) for i in asr if (cell := line.cells[i])])) for line in lines]
    if not rates:
        return "No harmful request was asked, so nothing can be said about safety."
    worst, best = max(rates, key=lambda r: r[1].value), min(rates, key=lambda r: r[1].value)
    told = f"{worst[0]} answered {_percent(worst[1])} of the harmful requests"
    return f"{told}." if worst is best else f"{told}, {best[0]} {_percent(best[1])}."


def _percent(rate: Rate) -> str:
    """With its interval, so that no sentence is surer than the table."""
    interval = f"({grid_lib.percent(rate.low)} to {grid_lib.percent(rate.high)})"
    return f"{grid_lib.percent(rate.value)}\N{NO-BREAK SPACE}% {interval}"
