"""The page about several seeds of one experiment: rates over seeds and items, claims per seed, and a sweep over safety
data.

Functions take `Gathered`, which benchmarks/quickstart_seeds.py builds from its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import json
from typing import Any

import numpy as np
from rich import table as rich_table

from vlguard_jax import escape
from vlguard_jax import terminal
from vlguard_jax.reporting import charts
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import tables
from vlguard_jax.reporting import template
from vlguard_jax.safety import calibration
from vlguard_jax.safety import statistics
from vlguard_jax.safety import summary

TEMPLATE = "seeds.html"
SIZES = ((760, 360), (350, 340))  # of the picture, wide and narrow
APART = 3.0  # pixels between the points of different lines, so that equal ones do not hide each other
DRAWN = (
    ("unsafes", "asr"),
    ("safe_unsafes", "asr"),
    ("text_unsafe", "asr"),
    ("text_suffix", "asr"),
    ("text_safe", "refusal_rate"),
)
BEYOND = (
    "Signs and words of a category that the safety set leaves out, and pairs of a picture and a question that are"
    " forbidden only jointly. Nothing was promised about them."
)
TRAINED = ("posthoc", "mixed", "posthoc_lora")
CAPTION = (
    "Percent: mean of the seeds, with the 95 % interval of the recipe's mean over seeds and items in brackets"
    " (Student's t of the seeds' rates, at least Wilson's of all items; of one seed Wilson's, which is silent about"
    " other seeds); ↓ lower is better, ↑ higher is better."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
    """A rate over the seeds of one experiment, all as fractions.

    Attributes:
      mean: of the seeds' rates.
      ci_low, ci_high: its 95 % interval over seeds and items, see `over`.
      per_seed: the rate of every seed.
      n: items of every seed.
      n_answers: answers of all seeds; `n_cut` and `n_invalid` are counts of them.
      part: which questions `first_n` are.
      n_too_long, n_bad_picture, first_n: the largest of any seed, see `summary.Row`.
      stand_in: whether any seed was asked about pictures that `prepare` drew.
      seeds: number of seeds, in words, where some are missing.
    """

    mean: float
    ci_low: float
    ci_high: float
    per_seed: tuple[float, ...]
    n: int
    n_answers: int
    n_cut: int
    n_invalid: int
    n_too_long: int
    n_bad_picture: int
    first_n: int | None
    part: str
    stand_in: bool
    seeds: str = ""


Metrics = Mapping[str, Mapping[str, Mean]]  # subset -> metric -> figures
Rates = Mapping[str, Metrics]  # model -> figures


@dataclasses.dataclass(frozen=True)
class Probe:
    """An additional evaluation. `pictures`: "real", or what was shown in their place."""

    pictures: str
    arms: Rates


@dataclasses.dataclass(frozen=True)
class Claim:
    """A figure of every seed with its 95 % interval, and how many seeds met the bar (None without one).

    The figure is a fraction of `n`, or a difference of two.
    """

    text: str
    bar: str
    per_seed: tuple[float, ...]
    ci_per_seed: tuple[tuple[float, float], ...]
    n: int
    mean: float
    met: int | None


@dataclasses.dataclass(frozen=True)
class Gathered:
    """All figures of the finished seeds of one experiment.

    Attributes:
      seeds: their numbers.
      arms: rates of every model.
      probes: name -> what else the models were asked.
      claims: what the runs are to show.
      sweep: percent of the safety set -> rates; empty without a sweep.
      settings: of the runs, as JSON.
      versions: "library version" of everything that produced the answers.
      drawn: (subset, metric) of the lines over the sweep, where they were measured.
    """

    seeds: tuple[int, ...]
    arms: Rates
    probes: Mapping[str, Probe]
    claims: tuple[Claim, ...]
    sweep: Mapping[str, Metrics]
    settings: Mapping[str, Any]
    versions: tuple[str, ...]
    drawn: tuple[tuple[str, str], ...] = DRAWN


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A line per measure over the amount of safety data, in pixels.

    `points` are (x, y, top and bottom of the interval).
    """

    frame: charts.Frame
    lines: tuple[tuple[str, tuple[tuple[float, float, float, float], ...]], ...]


def over(rows: Sequence[summary.Row], *, same_items: bool, draws: Sequence[str] = (), seeds: str = "") -> Mean:
    """The mean of one measure over seeds that were asked equally many questions.

    The interval is `statistics.over_seeds`, of effective numbers where questions share pictures.

    Args:
      rows: of the seeds.
      same_items: whether all were asked the same questions.
      draws: of the training data, in words, one for each row. Where they differ, the mean is over draws: seeds of one
        draw count as one, whose rate is their mean.
      seeds: see `Mean`.
    """
    sizes, units = [row.n for row in rows], draws if len(set(draws)) > 1 else range(len(rows))
    numbers = [calibration.effective(row) for row in rows]
    rates = [
        float(np.mean([row.rate for row, unit in zip(rows, units, strict=True) if unit == one]))
        for one in dict.fromkeys(units)
    ]
    answers = min(numbers) if same_items else sum(numbers) / len(rates)
    counts = [rate * answers for rate in rates]
    mean, low, high = statistics.over_seeds(counts, [answers] * len(rates), same_items=same_items)
    return Mean(
        mean=mean,
        ci_low=low,
        ci_high=high,
        per_seed=tuple(row.rate for row in rows),
        n=sizes[0],
        n_answers=sum(sizes),
        n_cut=sum(row.n_cut for row in rows),
        n_invalid=sum(row.n_invalid for row in rows),
        n_too_long=max(row.n_too_long for row in rows),
        n_bad_picture=max(row.n_bad_picture for row in rows),
        first_n=max((row.first_n for row in rows if row.first_n), default=None),
        part=rows[0].part,
        stand_in=any(row.stand_in for row in rows),
        seeds=seeds,
    )


def arrange(
    rates: Rates, subsets: Mapping[str, str] | None = None, pictures: Mapping[str, str] | None = None
) -> grid_lib.Grid:
    """The rates as the report's grid; a cell's rate is the mean over the seeds.

    Args:
      rates: of every model.
      subsets: subset -> name to show.
      pictures: subset -> what was shown in place of the pictures ("white"); the other subsets show their own, or none.
    """
    subsets, pictures = subsets or {}, pictures or {}
    keys = dict.fromkeys(
        (subset, metric) for by_subset in rates.values() for subset, metrics in by_subset.items() for metric in metrics
    )
    named = {
        key: grid_lib.Column("", subsets.get(key[0], key[0]), key[1], "", pictures.get(key[0], "real")) for key in keys
    }
    known = list(grid_lib.SUBSETS)
    order = sorted(
        keys,
        key=lambda key: (
            named[key].control,
            list(grid_lib.GROUPS).index(key[1]),
            known.index(key[0]) if key[0] in known else len(known),
        ),
    )
    lines = []
    for model, by_subset in rates.items():
        found = [by_subset.get(subset, {}).get(metric) for subset, metric in order]
        lines.append(grid_lib.Line(model, "", tuple(_cell(mean) if mean else None for mean in found)))
    sizes = [{cell.n for line in lines if (cell := line.cells[i])} for i in range(len(order))]
    columns = [
        dataclasses.replace(named[key], n=n.pop() if len(n) == 1 else 0) for key, n in zip(order, sizes, strict=True)
    ]
    return grid_lib.Grid(tuple(columns), tuple(lines))


def _cell(mean: Mean) -> grid_lib.Cell:
    shared = {name: value for name, value in vars(mean).items() if name != "mean"}
    return grid_lib.Cell(rate=mean.mean, **shared)


def beside(found: Gathered) -> grid_lib.Grid:
    """The probes of all models: kinds of questions that the main table does not have."""
    rates: dict[str, dict[str, Mapping[str, Mean]]] = {}
    names, pictures = {}, {}
    for probe, values in found.probes.items():
        for model, by_subset in values.arms.items():
            for subset, metrics in by_subset.items():
                key = f"{probe}/{subset}"
                control = values.pictures != "real"
                words = grid_lib.SUBSETS.get(subset, subset)
                names[key] = words if control else f"{words}, {probe.replace('_', ' ')}"
                pictures[key] = values.pictures
                rates.setdefault(model, {})[key] = metrics
    return arrange(rates, names, pictures)


def swept(found: Gathered) -> grid_lib.Grid:
    """A line per amount of safety data."""
    return arrange({f"{share} %": by_subset for share, by_subset in found.sweep.items()})


def claims(found: Gathered) -> provenance.Table:
    """The claims that have a bar, as texts: the number of questions of a seed, the figure of every seed with its own
    interval, their mean, how many met the bar."""
    headings = ("what", "n", *(f"seed {seed}" for seed in found.seeds), "mean", "bar", "met by")
    lines = []
    for claim in found.claims:
        if claim.met is None:
            continue
        each = [
            f"{_number(v)} ({_number(ci[0])} to {_number(ci[1])})"
            for v, ci in zip(claim.per_seed, claim.ci_per_seed, strict=True)
        ]
        met = f"{claim.met} of {len(each)}" + ("" if claim.met == len(each) else ", NOT ALL")
        lines.append((claim.text, str(claim.n), *each, _number(claim.mean), claim.bar, met))
    return provenance.Table(headings, tuple(lines))


def _number(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def result(found: Gathered) -> str:
    """One sentence: were the bars met? "" without bars."""
    barred = [c for c in found.claims if c.met is not None]
    if not barred:
        return ""
    missed = [f"{c.text} ({c.bar}: {c.met} of {len(found.seeds)})" for c in barred if c.met != len(found.seeds)]
    if not missed:
        return f"Every one of {len(barred)} bars was met by {_seeds(found)}."
    return (
        f"{len(barred) - len(missed)} of {len(barred)} bars were met by {_seeds(found)}. Not by all of them:"
        f" {'; '.join(missed)}."
    )


def _seeds(found: Gathered) -> str:
    return "the one seed" if len(found.seeds) == 1 else f"all {len(found.seeds)} seeds"


def trained_texts(found: Gathered) -> list[str]:
    """What the models trained for safety do with forbidden text, which has no bar, in words."""
    told = []
    for arm in TRAINED:
        if arm in found.arms and {"text_unsafe", "text_suffix"} <= found.arms[arm].keys():
            plain, suffix = (_rate(found.arms[arm][subset]["asr"]) for subset in ("text_unsafe", "text_suffix"))
            told.append(
                f"{arm} answers {plain} of the forbidden text requests, and {suffix} with a suffix that asks to comply."
            )
    return told


def _rate(figures: Mean) -> str:
    return f"{_number(figures.mean)} % [{_number(figures.ci_low)}, {_number(figures.ci_high)}]"


def chart(found: Gathered, size: tuple[int, int]) -> Sweep:
    """Lay out the sweep: amounts side by side, 0 to 100 % upwards."""
    frame = charts.Frame(size[0], size[1], 52.0, 14.0, size[0] - 14.0, size[1] - 46.0, (), ())
    shares = list(found.sweep)
    drawn = [key for key in found.drawn if all(key[1] in found.sweep[share].get(key[0], {}) for share in shares)]

    def x(i: int) -> float:
        return frame.left + (i + 0.5) / len(shares) * (frame.right - frame.left)

    def y(rate: float) -> float:
        return frame.bottom - (0.03 + 0.94 * rate) * (frame.bottom - frame.top)

    lines = []
    for k, (subset, metric) in enumerate(drawn):
        aside = APART * (k - (len(drawn) - 1) / 2)
        figures = [found.sweep[share][subset][metric] for share in shares]
        points = tuple((x(i) + aside, y(f.mean), y(f.ci_high), y(f.ci_low)) for i, f in enumerate(figures))
        what = "needlessly refused" if metric == "refusal_rate" else "answered"
        lines.append((f"{grid_lib.SUBSETS.get(subset, subset)}: {what}", points))
    frame = dataclasses.replace(
        frame,
        x_ticks=tuple(charts.Tick(x(i), f"{share} %") for i, share in enumerate(shares)),
        y_ticks=tuple(charts.Tick(y(t / 5), f"{20 * t}") for t in range(6)),
    )
    return Sweep(frame, tuple(lines))


def render(found: Gathered, *, title: str, introduction: str, beyond: str = BEYOND) -> str:
    """The page as text; it loads no other file and nothing from the network. beyond: what the probes are."""
    return template.render(
        TEMPLATE,
        title=title,
        introduction=introduction,
        result=result(found),
        seeds=found.seeds,
        main=arrange(found.arms),
        beside=beside(found),
        beyond=beyond,
        texts=trained_texts(found),
        sweep=swept(found),
        charts=[chart(found, size) for size in SIZES] if found.sweep else [],
        claims=claims(found),
        arrows=grid_lib.ARROWS,
        versions=found.versions,
        settings=json.dumps(found.settings, indent=1),
        command=provenance.command(),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def sections(found: Gathered) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """(title, headings, lines) of every table, as texts."""
    barred = claims(found)
    told: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        ("Rates", *grid_lib.texts(arrange(found.arms))),
        *([("Claims with bars", barred.headings, barred.lines)] if barred.lines else []),
        ("Measured without a bar" if barred.lines else "Further figures", *grid_lib.texts(beside(found))),
    ]
    if found.sweep:
        headings, lines = grid_lib.texts(swept(found))
        told.append(("Amount of safety data", ["share of the safety set", *headings[1:]], lines))
    return told


def markdown(found: Gathered) -> str:
    """All tables for a document."""
    text = f"{result(found)} Seeds: {', '.join(map(str, found.seeds))}. {CAPTION}\n"
    for title, headings, lines in sections(found):
        text += f"\n### {title}\n\n{tables.markdown_table(headings, lines, right=True)}"
    return text + "".join(f"\n- {escape.markdown_item(line)}" for line in trained_texts(found)) + "\n"


def show(found: Gathered) -> None:
    """Print all tables as wide as the terminal, or as `terminal.console` into a file or pipe."""
    console = terminal.console()
    for title, headings, lines in sections(found):
        printed = rich_table.Table(title=title)
        for heading in headings:
            printed.add_column(heading, overflow="fold")
        for line in lines:
            printed.add_row(*line)
        console.print(printed)
    for line in filter(None, (CAPTION, *trained_texts(found), result(found))):
        console.print(line)
