"""Lengths of every source's conversations, and figures of the batch plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from jaxtyping import Int64
import numpy as np
from rich import bar as rich_bar
from rich import console as rich_console
from rich import table as rich_table

from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families.chat import choice

BINS = 16  # of a histogram, at most
BAR = 40  # characters of its longest bar
TOTAL = "all sources"
STAND_IN = "STAND-IN PICTURES: drawn by `prepare --stand_in_images`"


@dataclasses.dataclass(frozen=True)
class Source:
    """One source, or all of them, after selection: lengths in tokens, picture slots included.

    cut: conversations truncated at max_len. silent: those without a supervised token. left_out: records that are not
    trained on, by reason. histogram: conversations of 1 .. w, w + 1 .. 2 w, ... tokens, where w is the report's
    `bin_width`.
    """

    name: str
    conversations: int
    pictures: int
    tokens: int
    mean: float
    p50: int
    p99: int
    longest: int
    supervised: int
    supervised_share: float
    cut: int
    silent: int
    left_out: dict[str, int]
    histogram: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Shapes of the arrays of `steps` steps; see data/plan.py."""

    rows: int
    row_len: int
    units: int
    slots: int
    steps: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Figures of the batch plan. steps: of the whole run, which may stop within an epoch."""

    mode: str
    shards: int
    rows: int
    steps_per_epoch: int
    steps: int
    computed_over_real: float
    shapes: tuple[Shape, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """The figures of all sources and, last, of everything together, in tokens.

    template, template_sha256: name and hash of the chat template; chosen: the same for people. crossing, special_asked,
    special_answered: as in `types.Noted`.
    """

    max_len: int
    bin_width: int
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    stand_in: bool
    template: str
    template_sha256: str
    chosen: str
    crossing: int
    special_asked: int
    special_answered: int


def measure(mixture: mixtures.Mixture) -> Report:
    """The figures of a mixture; reads no record."""
    index, max_len = mixture.index, mixture.tokenization.max_len
    width = bin_width(int(index.length.max(initial=1)))
    of = [
        (name, index.source == i, [d for d in mixture.drops if d.source == name])
        for i, name in enumerate(index.source_names)
    ]
    if len(of) > 1:
        of.append((TOTAL, np.ones(len(index), bool), list(mixture.drops)))
    bins = -(-int(index.length.max(initial=1)) // width)
    found = tuple(_source(name, mixture, np.flatnonzero(mine), drops, width, bins) for name, mine, drops in of)
    template = mixture.tokenization.template
    chosen = template.name, template.sha256, choice.told(template)
    return Report(max_len, width, found, tuple(mixture.notes()), mixture.stand_in, *chosen, *mixture.noted)


def plan(made: plan_lib.BatchPlan, steps: int) -> Plan:
    """Figures of the first `steps` steps of a plan."""
    counts = Counter(made[step].shape for step in range(steps))
    shapes = tuple(Shape(s.rows, s.row_len, s.units, s.slots, counts[s]) for s in made.shapes)
    layout = made.layout
    ratio, notes = made.computed_over_real, tuple(made.notes())
    return Plan(made.data.mode, layout.shards, layout.rows, made.steps_per_epoch, steps, ratio, shapes, notes)


def bin_width(longest: int) -> int:
    """The smallest power of two that covers `longest` tokens with `BINS` bins."""
    width = 1
    while width * BINS < longest:
        width *= 2
    return width


REASONS = {
    "picture": "picture missing or not readable",
    "pictures": "pictures and picture tags do not match",
    "tag": "pictures and picture tags do not match",
    "tokens": "mismatch of text and tokens",
    "record": "malformed record",
}


def _source(
    name: str,
    mixture: mixtures.Mixture,
    mine: Int64[np.ndarray, " m"],
    drops: Sequence[mixtures.Drop],
    width: int,
    bins: int,
) -> Source:
    index = mixture.index
    length, supervised = index.length[mine], index.supervised[mine]
    p50, p99 = np.quantile(length, (0.5, 0.99), method="inverted_cdf") if len(mine) else (0, 0)
    tokens = int(length.sum())
    return Source(
        name=name,
        conversations=len(mine),
        pictures=int(index.pictures[mine].sum()),
        tokens=tokens,
        mean=tokens / max(1, len(mine)),
        p50=int(p50),
        p99=int(p99),
        longest=int(length.max(initial=0)),
        supervised=int(supervised.sum()),
        supervised_share=float(supervised.sum() / max(1, tokens)),
        cut=int((length >= mixture.tokenization.max_len).sum()),
        silent=int((supervised == 0).sum()),
        left_out=dict(Counter(REASONS[drop.kind] for drop in drops).most_common()),
        histogram=tuple(np.bincount(np.maximum(length - 1, 0) // width, minlength=bins).tolist()),
    )


def as_json(report: Report, made: Plan, **more: Any) -> dict[str, Any]:
    """The same figures as JSON values."""
    return {"schema": 1, **dataclasses.asdict(report), "plan": dataclasses.asdict(made), **more}


def show(report: Report, console: rich_console.Console) -> None:
    """Print the figures, a histogram for each source, and notes about the mixture."""
    shown = rich_table.Table("", title="Tokens count picture slots", title_style="dim", title_justify="left")
    for s in report.sources:
        shown.add_column(s.name, justify="right", overflow="fold")
    for name, cell in _ROWS.items():
        shown.add_row(name, *(cell(s) for s in report.sources))
    console.print(shown)
    console.print(
        f"cut: reaches max_len={report.max_len:,} tokens and ends there. learned: what the loss asks the model for.",
        style="dim",
    )
    for s in report.sources:
        console.print(_histogram(s, report.bin_width))
    for s in report.sources:
        if s.left_out and s.name != TOTAL:
            reasons = ", ".join(f"{count:,} {text}" for text, count in s.left_out.items())
            console.print(f"{s.name}: left out {sum(s.left_out.values()):,}: {reasons}")
    for note in (report.chosen, *report.notes, *[STAND_IN] * report.stand_in):
        console.print(note)


def show_plan(made: Plan, console: rich_console.Console) -> None:
    """Print the figures of a plan."""
    shown = rich_table.Table(title=f"Batch plan, {_count(made.shards, 'row shard')}")
    for head in ("steps", "rows", "tokens of a row", "tokens of a step", "picture room of a shard"):
        shown.add_column(head, justify="right")
    for s in made.shapes:
        shown.add_row(*(f"{n:,}" for n in (s.steps, s.rows, s.row_len, s.rows * s.row_len, s.units)))
    console.print(shown)
    at_once = f", {made.rows} rows at a time" if made.rows else ""
    console.print(f"{_count(made.steps_per_epoch, 'step')} an epoch, {_count(made.steps, 'step')} in all{at_once}")
    for note in made.notes:
        console.print(note)


_ROWS: dict[str, Callable[[Source], str]] = {
    "conversations": lambda s: f"{s.conversations:,}",
    "pictures": lambda s: f"{s.pictures:,}",
    "tokens": lambda s: f"{s.tokens:,}",
    "mean length": lambda s: f"{s.mean:,.0f}",
    "p50": lambda s: f"{s.p50:,}",
    "p99": lambda s: f"{s.p99:,}",
    "longest": lambda s: f"{s.longest:,}",
    "learned tokens": lambda s: f"{s.supervised:,}",
    "learned share": lambda s: f"{100 * s.supervised_share:.1f} %",
    "none learned": lambda s: f"{s.silent:,}",
    "cut": lambda s: f"{s.cut:,}",
    "left out": lambda s: f"{sum(s.left_out.values()):,}",
}


def _histogram(source: Source, width: int) -> rich_table.Table:
    shown = rich_table.Table(
        title=source.name, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 1, 0, 0)
    )
    shown.add_column(justify="right", no_wrap=True)
    shown.add_column(width=BAR)
    shown.add_column(justify="right", no_wrap=True)
    shown.add_column(justify="right", no_wrap=True)
    most = max(1, *source.histogram)
    filled = [i for i, n in enumerate(source.histogram) if n]
    for i in range(min(filled, default=0), max(filled, default=-1) + 1):
        n = source.histogram[i]
        share = f"{100 * n / max(1, source.conversations):.1f} %"
        tokens = f"{i * width + 1:,} - {(i + 1) * width:,}"
        shown.add_row(tokens, rich_bar.Bar(most, 0, n, width=BAR), f"{n:,}", share)
    return shown


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
