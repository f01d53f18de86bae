"""How many tokens the devices compute for each token of a conversation, at the size of the full mixture.

  python benchmarks/packing.py

Plans one epoch of 665,298 + 2,000 conversations in steps of exactly 128, with the planner that training uses: packed
rows for several data-parallel sizes, in random order and with lengths dealt evenly within windows of steps; beside them
padded rows and the reference's sampler. The conversations' lengths are drawn from a model, as no histogram of the real
ones is published. Prints one table, or with --json one JSON object.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import json
import resource
import sys
import time
from typing import Any

from absl import flags
import numpy as np

from vlguard_jax import cli
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import order
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.ranges import Range

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_LIMIT = cli.define_number(
    "limit", int, 0, Range(0, 10**9), "plan about so many conversations only, each source by its share; 0: all"
)
_SEED = cli.define_number("seed", int, 0, Range(0, 2**32 - 1), "of the lengths and of the order")

BATCH, RANKS = 128, 8  # conversations a step; ranks of the reference, 16 conversations each
WINDOW = 32  # steps that lengths are dealt to, "even"
DATA_PARALLEL = (1, 8, 16, 32, 64)
BAR_SECONDS = 60  # for all ten packed plans together, on two idle CPU cores
BARS = {"random": {1: 1.12, 8: 1.12, 16: 1.12, 32: 1.17}, "even": {1: 1.06, 8: 1.06, 16: 1.06, 32: 1.09}}

PROMPT = 36  # tokens of the system prompt and the roles, vicuna_v1
PATCHES = 576  # tokens of a picture, LLaVA-1.5
MAX_LEN = 2048
WORDS_PER_TOKEN = 0.75


@dataclasses.dataclass(frozen=True)
class Source:
    """`count` conversations whose questions and answers have log-normally many tokens: `median`, and `sigma` of the
    logarithm."""

    name: str
    count: int
    median: float
    sigma: float
    pictures: int = 1


# Names and sizes: the mixture as LLaVA-1.5's paper lists it in thousands (its Table 7), the remainder to 665,298 in the
# first and the text-only one. Medians and sigmas are guesses from the form of each source's answers, set so that the
# whole has picture conversations with mean 825, median 783 and 99th percentile 1,280 tokens, text-only ones with mean
# 1,230, all cut at 2,048.
SOURCES = (
    Source("LLaVA-Instruct", 158_715, 220, 0.38),
    Source("VQAv2", 83_000, 140, 0.3),
    Source("GQA", 72_000, 150, 0.3),
    Source("OKVQA", 9_000, 110, 0.3),
    Source("OCR-VQA", 80_000, 120, 0.3),
    Source("A-OKVQA", 66_000, 110, 0.25),
    Source("TextCaps", 22_000, 75, 0.2),
    Source("RefCOCO", 48_000, 340, 0.3),
    Source("VG", 86_000, 400, 0.3),
    Source("ShareGPT", 40_583, 1_110, 0.62, pictures=0),
    Source("VLGuard", 2_000, 100, 0.5),
)

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Line:
    """One plan: `figures` go into the JSON object, the rest only into the table."""

    path: tuple[str, ...]
    figures: Row
    bar: float | None = None
    seconds: float | None = None


def main(positional: list[str]) -> int:
    """Plan, then print."""
    if positional:
        raise errors.UserError("packing.py takes --json, --limit and --seed; see --help")
    if _LIMIT.value and _LIMIT.value < WINDOW * BATCH:
        raise errors.UserError(
            f"--limit={_LIMIT.value}: a window of {WINDOW} steps alone has {WINDOW * BATCH:,} conversations"
        )
    index = mixture(_LIMIT.value, _SEED.value)
    lines = list(measure(index, _SEED.value))
    if _JSON.value:
        print(json.dumps(nested(lines)))
    else:
        show(index, lines)
    return errors.EXIT_OK


def mixture(limit: int, seed: int) -> index_lib.SampleIndex:
    """An index of drawn lengths; of about `limit` conversations, or 0: all."""
    rng = np.random.default_rng(seed)
    share = limit / sum(source.count for source in SOURCES) if limit else 1.0
    counts = [round(source.count * share) for source in SOURCES]
    source = np.repeat(np.arange(len(SOURCES), dtype=np.int32), counts)
    text = np.concatenate([rng.lognormal(np.log(s.median), s.sigma, n) for s, n in zip(SOURCES, counts, strict=True)])
    pictures = np.array([s.pictures for s in SOURCES])[source]
    words = np.maximum(1, text * WORDS_PER_TOKEN).astype(np.int64)
    return index_lib.SampleIndex(
        length=np.minimum(MAX_LEN, PROMPT + PATCHES * pictures + np.ceil(text).astype(np.int64)),
        pictures=pictures,
        units=pictures,
        slots=PATCHES * pictures,
        supervised=np.ones(len(source), np.int64),
        modality_length=np.where(pictures > 0, words, -words),
        ids=tuple(map(str, range(len(source)))),
        source=source,
        source_names=tuple(s.name for s in SOURCES),
    )


def measure(index: index_lib.SampleIndex, seed: int) -> Iterator[Line]:
    """Plan every line of the table."""
    for size in DATA_PARALLEL:
        for kind, window in (("random", 0), ("even", WINDOW)):
            data = config.DataSettings(mode="pack", order="shuffle", deal_window=window)
            plan, seconds = planned(index, data, seed, plan_lib.Layout(shards=size))
            (shape,) = plan.shapes
            figures = {"computed_over_real": plan.computed_over_real, "row_len": shape.row_len, "rows": shape.rows}
            yield Line(("data_parallel", str(size), kind), figures, BARS[kind].get(size), seconds)
    plan, seconds = planned(index, config.DataSettings(mode="pad"), seed, plan_lib.Layout())
    lengths = [shape.row_len for shape in plan.shapes]
    yield Line(
        ("pad",), {"computed_over_real": plan.computed_over_real, "row_len": lengths, "rows": BATCH}, seconds=seconds
    )
    yield Line(("reference_sampler",), reference_sampler(index, seed))


def planned(
    index: index_lib.SampleIndex, data: config.DataSettings, seed: int, layout: plan_lib.Layout
) -> tuple[plan_lib.BatchPlan, float]:
    """The plan of an epoch, every step of it looked at, and the seconds that took."""
    before = time.perf_counter()
    plan = plan_lib.BatchPlan(index, data, seed, layout)
    plan.check(plan.total_steps)
    return plan, time.perf_counter() - before


def reference_sampler(index: index_lib.SampleIndex, seed: int) -> Row:
    """The reference's batches: `RANKS` ranks a step, each padded to its own longest conversation. "synchronised" counts
    every rank as long as the slowest, for which the others wait. The incomplete last step is left out."""
    group = BATCH // RANKS
    drawn = order.epoch_order("modality_length", index.modality_length, BATCH, group, seed, 0)
    lengths = index.length[drawn[: len(drawn) // BATCH * BATCH]].reshape(-1, RANKS, group)
    longest = lengths.max(2)
    return {
        "computed_over_real": float(longest.sum() * group / lengths.sum()),
        "synchronised": float(longest.max(1).sum() * BATCH / lengths.sum()),
    }


def nested(lines: list[Line]) -> Row:
    """The figures by path."""
    found: Row = {}
    for line in lines:
        place = found
        for key in line.path[:-1]:
            place = place.setdefault(key, {})
        place[line.path[-1]] = line.figures
    return found


def show(index: index_lib.SampleIndex, lines: list[Line]) -> None:
    """Print the table."""
    from rich import console as rich_console
    from rich import table as rich_table

    kinds = {"random": "random order", "even": f"dealt evenly, window {WINDOW}"}
    table = rich_table.Table(
        title=f"{len(index):,} conversations, {BATCH} a step, mean {index.length.mean():,.0f} tokens"
    )
    for heading in ("data parallel", "order", "rows", "tokens a row", "computed / real", "at most", "planned in s"):
        table.add_column(heading, justify="left" if heading == "order" else "right")
    for line in lines:
        figures = line.figures
        lengths = figures.get("row_len", "own longest")
        size, kind = (
            ("-", line.path[0].replace("_", " ")) if len(line.path) == 1 else (line.path[1], kinds[line.path[2]])
        )
        ratio = f"{figures['computed_over_real']:.3f}"
        if "synchronised" in figures:
            ratio += f" ({figures['synchronised']:.3f} with waiting)"
        table.add_row(
            size,
            kind,
            str(figures.get("rows", BATCH)),
            ", ".join(f"{n:,}" for n in lengths)
            if isinstance(lengths, list)
            else f"{lengths:,}"
            if isinstance(lengths, int)
            else lengths,
            ratio,
            f"{line.bar:.2f}" if line.bar else "-",
            f"{line.seconds:.1f}" if line.seconds else "-",
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    console = rich_console.Console()
    (console if console.is_terminal else rich_console.Console(width=140)).print(table)
    packed = sum(line.seconds or 0.0 for line in lines if line.path[0] == "data_parallel")
    print(f"packed plans: {packed:.1f} s (bar: {BAR_SECONDS})")
    print(f"peak memory {peak:,.0f} MiB; lengths are drawn from a model (SOURCES in this file), seed {_SEED.value}")


if __name__ == "__main__":
    cli.run(main)
