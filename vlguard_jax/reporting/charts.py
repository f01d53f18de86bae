"""Geometry of the page's charts; the template draws them, in the colours of the page.

Every chart is laid out twice, for a wide and for a narrow screen, so that its text keeps its size.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

from vlguard_jax.reporting import tradeoff

LETTER = 7.6  # width of a letter of a label, in pixels: an upper bound at 14 px
HEIGHT = 18  # of a line of text
SIZES = ((760, 470), (350, 400))  # wide, narrow: width and height in pixels
STYLES = 7  # colours, markers and dashes before they repeat
LEAST, MOST = 1e-30, 1e30  # range of the values that are drawn
POINTS = 400  # of a curve; more would not be visible


@dataclasses.dataclass(frozen=True)
class Tick:
    """A grid line at `at` pixels with its text."""

    at: float
    text: str


@dataclasses.dataclass(frozen=True)
class Frame:
    """The drawing area in pixels, with its grid lines."""

    width: int
    height: int
    left: float
    top: float
    right: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point with its interval bars (pixels) and its label.

    `leader`: the label is far away, and a line joins the point and (end_x, end_y). `style` counts from 0.
    """

    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    style: int
    label: str
    label_x: float
    label_y: float
    leader: bool
    end_x: float
    end_y: float


@dataclasses.dataclass(frozen=True)
class Scatter:
    """Safety against utility."""

    frame: Frame
    marks: tuple[Mark, ...]


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line: SVG point lists of the raw and of the smoothed values."""

    style: int
    raw: str
    smooth: str


@dataclasses.dataclass(frozen=True)
class Curves:
    """Loss over updates."""

    frame: Frame
    curves: tuple[Curve, ...]
    logarithmic: bool


@dataclasses.dataclass(frozen=True)
class Band:
    """One rate: SVG point lists of its line and of the area of its intervals, and (x, y) of each value."""

    style: int
    line: str
    area: str
    values: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Rates:
    """Rates over updates, with their intervals."""

    frame: Frame
    bands: tuple[Band, ...]


def _frame(width: int, height: int) -> Frame:
    return Frame(width, height, 52.0, 14.0, width - 14.0, height - 46.0, (), ())


def _cut(label: str, width: float) -> str:
    most = int(width / LETTER)
    return label if len(label) <= most else label[: most - 1] + "…"


def scatter(points: Sequence[tradeoff.Point], styles: Sequence[int], size: tuple[int, int]) -> Scatter:
    """Lay out the points: harm from 0 to 100 %, help from below the lowest interval."""
    frame = _frame(*size)
    low = min(0.8, math.floor(5 * min(p.help.low for p in points)) / 5)

    def x(rate: float) -> float:
        return frame.left + (0.03 + 0.94 * rate) * (frame.right - frame.left)

    def y(rate: float) -> float:
        return frame.bottom - (0.04 + 0.92 * (rate - low) / (1 - low)) * (frame.bottom - frame.top)

    every = 5 if low < 0.6 else 10
    frame = dataclasses.replace(
        frame,
        x_ticks=tuple(Tick(x(t / 5), f"{20 * t}") for t in range(6)),
        y_ticks=tuple(Tick(y(t / every), f"{100 * t // every}") for t in range(round(low * every), every + 1)),
    )
    centres = [(x(p.harm.value), y(p.help.value)) for p in points]
    labels = [_cut(p.label, 0.75 * (frame.right - frame.left)) for p in points]
    bars = [(x(p.harm.low), x(p.harm.high), y(p.help.low), y(p.help.high)) for p in points]
    marks = []
    for ends, style, (px, py), label, (lx, ly, leader) in zip(
        bars, styles, centres, labels, _place(centres, labels, frame, bars), strict=True
    ):
        end = (min(max(px, lx), lx + LETTER * len(label)), ly - 5)
        marks.append(Mark(px, py, *ends, style, label, lx, ly, leader, *end))
    return Scatter(frame, tuple(marks))


Box = tuple[float, float, float, float]


def _place(
    centres: Sequence[tuple[float, float]], labels: Sequence[str], frame: Frame, bars: Sequence[Box]
) -> list[tuple[float, float, bool]]:
    """(left, baseline, leader?) of each label: the nearest free place inside the frame, searched in growing rings."""
    taken: list[Box] = [(x - 9, y - 9, x + 9, y + 9) for x, y in centres]
    for (x, y), (left, right, bottom, top) in zip(centres, bars, strict=True):
        taken += [(left, y - 2, right, y + 2), (x - 2, top, x + 2, bottom)]
    found = []
    for (x, y), label in zip(centres, labels, strict=True):
        width = LETTER * len(label)
        places = [
            (x + math.cos(a) * (14 + d) - width * (1 - math.cos(a)) / 2, y + math.sin(a) * (14 + d) + 5, d > 12)
            for d in range(0, 400, 8)
            for a in (k * math.pi / 8 for k in (0, 8, 12, 4, 1, 15, 7, 9, 2, 14, 6, 10, 3, 13, 5, 11))
        ]
        left, base, leader = next(
            (p for p in places if _free((p[0], p[1] - HEIGHT + 4, p[0] + width, p[1] + 4), taken, frame)), places[0]
        )
        taken.append((left - 6, base - HEIGHT + 2, left + width + 6, base + 6))
        found.append((left, base, leader))
    return found


def _free(box: Box, taken: Sequence[Box], frame: Frame) -> bool:
    inside = frame.left <= box[0] and box[2] <= frame.right and frame.top <= box[1] and box[3] <= frame.bottom
    return inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken)


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` of them."""
    if high <= low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(s for s in (step, 2 * step, 5 * step, 10 * step, 20 * step) if (high - low) / s < most)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or only the powers where these are many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**e for e in exponents for d in digits if low <= d * 10.0**e <= high]
        if len(found) <= 8:
            break
    return found


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Exponential moving average over about `window` values, corrected for its start at zero."""
    keep = 1 - 1 / max(1, window)
    total = weight = 0.0
    found = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        found.append(total / weight)
    return found


Series = Sequence[tuple[float, float]]  # (update, loss)


def curves(series: Sequence[Series], styles: Sequence[int], size: tuple[int, int]) -> Curves | None:
    """Lay out loss curves, losses on a logarithmic axis where they span more than a factor of ten; None without a
    finite value.

    Values that are not finite or beyond LEAST and MOST are left out.
    """
    finite = [[(u, v) for u, v in one if LEAST < v < MOST] for one in series]
    if not any(finite):
        return None
    losses, last = [v for one in finite for _, v in one], max(u for one in finite for u, _ in one)
    logarithmic = max(losses) > 10 * min(losses)
    low, high = (min(losses) / 1.1, max(losses) * 1.1) if logarithmic else (0.0, 1.05 * max(losses))
    frame = _frame(*size)

    def x(update: float) -> float:
        return frame.left + update / last * (frame.right - frame.left)

    def y(loss: float) -> float:
        share = math.log(loss / low) / math.log(high / low) if logarithmic else (loss - low) / (high - low)
        return frame.bottom - share * (frame.bottom - frame.top)

    frame = dataclasses.replace(
        frame,
        x_ticks=tuple(Tick(x(t), f"{t:,.0f}") for t in nice_ticks(0.0, last, 7 if size[0] > 500 else 4) if t == int(t)),
        y_ticks=tuple(
            Tick(y(t), f"{t:g}") for t in (log_ticks(low, high) if logarithmic else nice_ticks(low, high, 6))
        ),
    )

    def path(one: Series) -> str:
        every = math.ceil(len(one) / POINTS)
        return " ".join(f"{x(u):.1f},{y(v):.1f}" for u, v in (*one[:-1:every], *one[-1:]))

    lines = []
    for one, style in zip(finite, styles, strict=True):
        smoothed = smooth([v for _, v in one], len(one) // 50)
        lines.append(Curve(style, path(one), path([(u, s) for (u, _), s in zip(one, smoothed, strict=True)])))
    return Curves(frame, tuple(lines), logarithmic)


def rates(series: Sequence[Sequence[tuple[int, float, float, float]]], size: tuple[int, int]) -> Rates:
    """Lay out rates as (update, rate, low, high), fractions, each series from its first update to its last; styles
    follow their order."""
    frame, last = _frame(*size), max(1.0, *(float(one[0]) for of_rate in series for one in of_rate))

    def x(update: int | float) -> float:
        return frame.left + (0.02 + 0.96 * update / last) * (frame.right - frame.left)

    def y(rate: float) -> float:
        return frame.bottom - (0.02 + 0.96 * rate) * (frame.bottom - frame.top)

    def path(points: Sequence[tuple[int, float]]) -> str:
        return " ".join(f"{x(u):.1f},{y(v):.1f}" for u, v in points)

    updates = nice_ticks(0.0, last, 7 if size[0] > 500 else 4)
    frame = dataclasses.replace(
        frame,
        x_ticks=tuple(Tick(x(t), f"{t:,.0f}") for t in updates if t == int(t)),
        y_ticks=tuple(Tick(y(t / 5), f"{20 * t}") for t in range(6)),
    )
    bands = []
    for style, of_rate in enumerate(series):
        around = [(u, low) for u, _, low, _ in of_rate] + [(u, high) for u, _, _, high in reversed(of_rate)]
        middle = [(u, rate) for u, rate, _, _ in of_rate]
        bands.append(Band(style, path(middle), path(around), tuple((x(u), y(v)) for u, v in middle)))
    return Rates(frame, tuple(bands))
