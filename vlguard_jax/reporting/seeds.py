"""The page about several seeds of one experiment: rates over seeds and items, claims per seed, and a sweep over safety
data.

All functions take the object that benchmarks/quickstart_seeds.py gathers (`gather` there documents it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import json
from typing import Any

from rich import table as rich_table

from vlguard_jax import escape
from vlguard_jax import terminal
from vlguard_jax.reporting import charts
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import tables
from vlguard_jax.reporting import template

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
TRAINED = ("posthoc", "mixed", "posthoc_lora")
CAPTION = (
    "Percent: mean of the seeds, with its 95 % interval over seeds and items in brackets; ↓ lower is better,"
    " ↑ higher is better."
)

Row = dict[str, Any]
Rates = Mapping[str, Mapping[str, Mapping[str, Row]]]  # model -> subset -> metric -> figures


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A line per measure over the amount of safety data, in pixels.

    `points` are (x, y, top and bottom of the interval).
    """

    frame: charts.Frame
    lines: tuple[tuple[str, tuple[tuple[float, float, float, float], ...]], ...]


def arrange(
    rates: Rates, subsets: Mapping[str, str] | None = None, pictures: Mapping[str, str] | None = None
) -> grid_lib.Grid:
    """The rates as the report's grid; a cell's rate is the mean over the seeds.

    Args:
      rates: see `gather`.
      subsets: subset -> name to show.
      pictures: subset -> what was shown in the place of the pictures ("white"); the others have their own, or none.
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
        lines.append(grid_lib.Line(model, "", tuple(None if f is None else {**f, "rate": f["mean"]} for f in found)))
    sizes = [{cell["n"] for line in lines if (cell := line.cells[i])} for i in range(len(order))]
    columns = [
        dataclasses.replace(named[key], n=n.pop() if len(n) == 1 else 0) for key, n in zip(order, sizes, strict=True)
    ]
    return grid_lib.Grid(tuple(columns), tuple(lines))


def beside(found: Row) -> grid_lib.Grid:
    """The probes of all models: questions of kinds that the main table does not have."""
    rates: dict[str, dict[str, Mapping[str, Row]]] = {}
    names, pictures = {}, {}
    for probe, values in found["probes"].items():
        for model, by_subset in values["arms"].items():
            for subset, metrics in by_subset.items():
                key = f"{probe}/{subset}"
                control = values["pictures"] != "real"
                words = grid_lib.SUBSETS.get(subset, subset)
                names[key] = words if control else f"{words}, {probe.replace('_', ' ')}"
                pictures[key] = values["pictures"]
                rates.setdefault(model, {})[key] = metrics
    return arrange(rates, names, pictures)


def swept(found: Row) -> grid_lib.Grid:
    """A line per amount of safety data."""
    return arrange({f"{share} %": by_subset for share, by_subset in found["sweep"].items()})


def claims(found: Row) -> provenance.Table:
    """The claims that have a bar, as texts: the figure of every seed with its own interval, their mean, how many met
    the bar."""
    headings = ("what", *(f"seed {seed}" for seed in found["seeds"]), "mean", "bar", "met by")
    lines = []
    for claim in found["claims"]:
        if claim["met"] is None:
            continue
        each = [
            f"{_number(v)} ({_number(ci[0])} to {_number(ci[1])})"
            for v, ci in zip(claim["per_seed"], claim["ci_per_seed"], strict=True)
        ]
        met = f"{claim['met']} of {len(each)}" + ("" if claim["met"] == len(each) else ", NOT ALL")
        lines.append((claim["text"], *each, _number(claim["mean"]), claim["bar"], met))
    return provenance.Table(headings, tuple(lines))


def _number(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def result(found: Row) -> str:
    """One sentence: were the bars met?"""
    barred = [c for c in found["claims"] if c["met"] is not None]
    missed = [
        f"{c['text']} ({c['bar']}: {c['met']} of {len(found['seeds'])})"
        for c in barred
        if c["met"] < len(found["seeds"])
    ]
    if not missed:
        return f"Every one of {len(barred)} bars was met by {_seeds(found)}."
    return (
        f"{len(barred) - len(missed)} of {len(barred)} bars were met by {_seeds(found)}. Not by all of them:"
        f" {'; '.join(missed)}."
    )


def _seeds(found: Row) -> str:
    return "the one seed" if len(found["seeds"]) == 1 else f"all {len(found['seeds'])} seeds"


def trained_texts(found: Row) -> list[str]:
    """What the models trained for safety do with forbidden text, which has no bar, in words."""
    told = []
    for arm in TRAINED:
        if arm in found["arms"] and {"text_unsafe", "text_suffix"} <= found["arms"][arm].keys():
            plain, suffix = (_rate(found["arms"][arm][subset]["asr"]) for subset in ("text_unsafe", "text_suffix"))
            told.append(
                f"{arm} answers {plain} of the forbidden text requests, and {suffix} with a suffix that asks to comply."
            )
    return told


def _rate(figures: Row) -> str:
    return f"{_number(figures['mean'])} % [{_number(figures['ci_low'])}, {_number(figures['ci_high'])}]"


def chart(found: Row, size: tuple[int, int]) -> Sweep:
    """Lay out the sweep: amounts side by side, 0 to 100 % upwards."""
    frame = charts.Frame(size[0], size[1], 52.0, 14.0, size[0] - 14.0, size[1] - 46.0, (), ())
    shares = list(found["sweep"])
    drawn = [key for key in DRAWN if all(key[1] in found["sweep"][share].get(key[0], {}) for share in shares)]

    def x(i: int) -> float:
        return frame.left + (i + 0.5) / len(shares) * (frame.right - frame.left)

    def y(rate: float) -> float:
        return frame.bottom - (0.03 + 0.94 * rate) * (frame.bottom - frame.top)

    lines = []
    for k, (subset, metric) in enumerate(drawn):
        aside = APART * (k - (len(drawn) - 1) / 2)
        figures = [found["sweep"][share][subset][metric] for share in shares]
        points = tuple((x(i) + aside, y(f["mean"]), y(f["ci_high"]), y(f["ci_low"])) for i, f in enumerate(figures))
        what = "needlessly refused" if metric == "refusal_rate" else "answered"
        lines.append((f"{grid_lib.SUBSETS[subset]}: {what}", points))
    frame = dataclasses.replace(
        frame,
        x_ticks=tuple(charts.Tick(x(i), f"{share} %") for i, share in enumerate(shares)),
        y_ticks=tuple(charts.Tick(y(t / 5), f"{20 * t}") for t in range(6)),
    )
    return Sweep(frame, tuple(lines))


def render(found: Row, *, title: str, introduction: str) -> str:
    """The page as text; one file that asks nothing of other files or of the network."""
    return template.render(
        TEMPLATE,
        title=title,
        introduction=introduction,
        result=result(found),
        seeds=found["seeds"],
        main=arrange(found["arms"]),
        beside=beside(found),
        texts=trained_texts(found),
        sweep=swept(found),
        charts=[chart(found, size) for size in SIZES] if found["sweep"] else [],
        claims=claims(found),
        arrows=grid_lib.ARROWS,
        versions=found["versions"],
        settings=json.dumps(found["settings"], indent=1),
        command=provenance.command(),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def sections(found: Row) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """(title, headings, lines) of every table, as texts."""
    barred = claims(found)
    told: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        ("Rates", *grid_lib.texts(arrange(found["arms"]))),
        ("Claims with bars", barred.headings, barred.lines),
        ("Measured without a bar", *grid_lib.texts(beside(found))),
    ]
    if found["sweep"]:
        headings, lines = grid_lib.texts(swept(found))
        told.append(("Amount of safety data", ["share of the safety set", *headings[1:]], lines))
    return told


def markdown(found: Row) -> str:
    """All tables for a document."""
    text = f"{result(found)} Seeds: {', '.join(map(str, found['seeds']))}. {CAPTION}\n"
    for title, headings, lines in sections(found):
        text += f"\n### {title}\n\n{tables.markdown_table(headings, lines, right=True)}"
    return text + "".join(f"\n- {escape.markdown_item(line)}" for line in trained_texts(found)) + "\n"


def show(found: Row) -> None:
    """Print all tables as wide as the terminal, or as `terminal.console` into a file or pipe."""
    console = terminal.console()
    for title, headings, lines in sections(found):
        printed = rich_table.Table(title=title)
        for heading in headings:
            printed.add_column(heading, overflow="fold")
        for line in lines:
            printed.add_row(*line)
        console.print(printed)
    for line in (CAPTION, *trained_texts(found), result(found)):
        console.print(line)
