"""Computed tokens and units for each real token and each unit of a picture, at the size of the full mixture.

  python benchmarks/packing.py
  python benchmarks/packing.py --model=llava-v1.6-vicuna-7b

Plans one epoch of 665,298 + 2,000 conversations in steps of exactly 128, with the planner that training uses: packed
rows for several data-parallel sizes, in random order and with lengths balanced within windows of steps; in comparison,
padded rows and the reference's sampler. The conversations' lengths are drawn from a model, as no histogram of the real
ones is published. So are the sizes of pictures for a family whose pictures take slots by their size; then the order
that groups conversations with and without pictures is planned as well. Prints one table, or with --json one JSON
object; ends with 1 if more is computed than a bar allows.
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
from vlguard_jax import types
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import order
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families import family as family_lib
from vlguard_jax.families import table
from vlguard_jax.planning import models
from vlguard_jax.ranges import Range

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_MODEL = flags.DEFINE_string(
    "model", "7b", "the model whose pictures are counted: 7b, 13b or the name of a preset", allow_override=True
)
_LIMIT = cli.define_number(
    "limit", int, 0, Range(0, 10**9), "plan about so many conversations only, each source by its share; 0: all"
)
_SEED = cli.define_number("seed", int, 0, Range(0, 2**32 - 1), "of the lengths and of the order")

BATCH, RANKS = 128, 8  # conversations a step; ranks of the reference, 16 conversations each
WINDOW = 32  # steps over which lengths are balanced, "even"
DATA_PARALLEL = (1, 8, 16, 32, 64)
ORDERS = {"random": ("shuffle", 0), "even": ("shuffle", WINDOW), "grouped": ("modality_length", 0)}
BAR_SECONDS = 60  # for all packed plans together, on two idle CPU cores
BARS = {"random": {1: 1.12, 8: 1.12, 16: 1.12, 32: 1.17}, "even": {1: 1.06, 8: 1.06, 16: 1.06, 32: 1.09}}
# Where pictures differ in size, in every order: data-parallel sizes, and the most that may be computed for each real
# one.
SIZED_BARS, TOKENS, UNITS = (1, 8, 16), 1.12, 1.15
EXIT_MISSED = 1

PROMPT = 36  # tokens of the system prompt and the roles, vicuna_v1
WORDS_PER_TOKEN = 0.75


@dataclasses.dataclass(frozen=True)
class Source:
    """`count` conversations whose tokens of questions and answers are log-normal: `median`, and `sigma` of the
    logarithm. pictures: whether they have one, and which of `SIZES` it has."""

    name: str
    count: int
    median: float
    sigma: float
    pictures: str = "coco"


# Names and sizes: the mixture as LLaVA-1.5's paper lists it in thousands (its Table 7), the remainder to 665,298 in the
# first and the text-only one. Medians and sigmas are guesses from the form of each source's answers, set so that the
# whole has picture conversations with mean 825, median 783 and 99th percentile 1,280 tokens with 576 for each picture,
# text-only ones with mean 1,230, all truncated at 2,048.
SOURCES = (
    Source("LLaVA-Instruct", 158_715, 220, 0.38),
    Source("VQAv2", 83_000, 140, 0.3),
    Source("GQA", 72_000, 150, 0.3, "genome"),
    Source("OKVQA", 9_000, 110, 0.3),
    Source("OCR-VQA", 80_000, 120, 0.3, "covers"),
    Source("A-OKVQA", 66_000, 110, 0.25),
    Source("TextCaps", 22_000, 75, 0.2, "photos"),
    Source("RefCOCO", 48_000, 340, 0.3),
    Source("VG", 86_000, 400, 0.3, "genome"),
    Source("ShareGPT", 40_583, 1_110, 0.62, ""),
    Source("VLGuard", 2_000, 100, 0.5, "screens"),
)
# Added for models that read pictures in their own size: they are trained on more documents. Both are guesses.
MORE = (Source("documents", 60_000, 120, 0.5, "screens"), Source("text", 45_000, 1_110, 0.62, ""))
# Width, height and share of pictures: guesses from what each kind looks like. Long sides are 640 in COCO, 500 or 1,024
# in Visual Genome, 1,024 in Open Images, 500 of book covers; then screenshots, scans and charts.
SIZES = {
    "coco": (
        *((640, 480, 34), (640, 427, 20), (480, 640, 14), (427, 640, 7), (500, 375, 6), (640, 426, 4), (375, 500, 4)),
        *((640, 640, 3), (640, 360, 3), (612, 612, 3), (640, 512, 2)),
    ),
    "genome": (
        *((500, 375, 30), (500, 333, 12), (1024, 768, 12), (800, 600, 10), (375, 500, 10), (1024, 683, 8)),
        *((640, 480, 8), (768, 1024, 5), (500, 500, 5)),
    ),
    "covers": ((333, 500, 35), (324, 499, 20), (382, 500, 20), (387, 500, 15), (500, 500, 10)),
    "photos": (*((1024, 768, 40), (1024, 683, 25), (768, 1024, 12), (683, 1024, 8), (1024, 1024, 8), (1024, 576, 7)),),
    "screens": (
        *((1920, 1080, 20), (1080, 2340, 15), (1700, 2200, 15), (600, 600, 15), (1280, 720, 15), (1170, 2532, 10)),
        *((1200, 400, 5), (400, 2000, 5)),
    ),
}

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Line:
    """One plan: `figures` go into the JSON object, the rest only into the table. bars: of figures that have one."""

    path: tuple[str, ...]
    figures: Row
    bars: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float | None = None

    @property
    def missed(self) -> list[str]:
        """Figures above their bars, in words."""
        over = [name for name, bar in self.bars.items() if self.figures[name] > bar]
        return [f"{' '.join(self.path)}: {name} {self.figures[name]:.3f}, at most {self.bars[name]}" for name in over]


def main(positional: list[str]) -> int:
    """Plan, then print."""
    if positional:
        raise errors.UserError("packing.py takes --json, --model, --limit and --seed; see --help")
    if _LIMIT.value and _LIMIT.value < WINDOW * BATCH:
        raise errors.UserError(
            f"--limit={_LIMIT.value}: a window of {WINDOW} steps alone has {WINDOW * BATCH:,} conversations"
        )
    model = models.resolve(config.ModelSettings(), _MODEL.value).config
    index = mixture(_LIMIT.value, _SEED.value, model)
    lines = list(measure(index, _SEED.value, seen(model).sized))
    missed = [words for line in lines for words in line.missed]
    if _JSON.value:
        print(json.dumps({**nested(lines), "missed": missed}))
    else:
        show(index, lines, seen(model).unit)
        print("\n".join([f"MISSED: {words}" for words in missed] or ["every bar is met"]))
    return EXIT_MISSED if missed else errors.EXIT_OK


def seen(model: family_lib.Config) -> family_lib.Pictures:
    """The model's pictures.

    Raises:
      UserError: it does not.
    """
    found = table.of(model).pictures
    if found is None:
        raise errors.UserError(f"--model={_MODEL.value} has no pictures")
    return found


def mixture(limit: int, seed: int, model: family_lib.Config) -> index_lib.SampleIndex:
    """An index of drawn lengths; of about `limit` conversations, or 0: all."""
    rng = np.random.default_rng(seed)
    sources = (*SOURCES, *MORE) if seen(model).sized else SOURCES
    share = limit / sum(source.count for source in sources) if limit else 1.0
    counts = [round(source.count * share) for source in sources]
    source = np.repeat(np.arange(len(sources), dtype=np.int32), counts)
    text = np.concatenate([rng.lognormal(np.log(s.median), s.sigma, n) for s, n in zip(sources, counts, strict=True)])
    extents = [extents_of(s.pictures, n, model, rng) for s, n in zip(sources, counts, strict=True)]
    slots, units = np.concatenate(extents).T
    pictures = np.array([bool(s.pictures) for s in sources], np.int64)[source]
    words = np.maximum(1, text * WORDS_PER_TOKEN).astype(np.int64)
    return index_lib.SampleIndex(
        length=np.minimum(table.of(model).max_len, PROMPT + slots + np.ceil(text).astype(np.int64)),
        pictures=pictures,
        units=units,
        slots=slots,
        supervised=np.ones(len(source), np.int64),
        modality_length=np.where(pictures > 0, words, -words),
        ids=tuple(map(str, range(len(source)))),
        source=source,
        source_names=tuple(s.name for s in sources),
    )


def extents_of(kind: str, count: int, model: family_lib.Config, rng: np.random.Generator) -> np.ndarray:
    """Slots and units i64[count, 2] of pictures of that kind, or of none."""
    if not kind:
        return np.zeros((count, 2), np.int64)
    width, height, share = np.array(SIZES[kind]).T
    sizes = [types.Size(*size) for size in zip(width.tolist(), height.tolist(), strict=True)]
    each = np.array([seen(model).extents(model, [size])[0] for size in sizes], np.int64)
    return each[rng.choice(len(each), count, p=share / share.sum())]


def measure(index: index_lib.SampleIndex, seed: int, sized: bool) -> Iterator[Line]:
    """Plan every line of the table."""
    for size in DATA_PARALLEL:
        for name, (kind, window) in ORDERS.items():
            if name == "grouped" and not sized:
                continue
            data = config.DataSettings(mode="pack", order=kind, deal_window=window)
            figures, seconds = planned(index, data, seed, plan_lib.Layout(shards=size))
            yield Line(("data_parallel", str(size), name), figures, bars(name, size, sized), seconds)
    figures, seconds = planned(index, config.DataSettings(mode="pad"), seed, plan_lib.Layout())
    yield Line(("pad",), figures, seconds=seconds)
    yield Line(("reference_sampler",), reference_sampler(index, seed))


def bars(name: str, size: int, sized: bool) -> dict[str, float]:
    """The bars of a line, by figure."""
    if sized:
        return {"computed_over_real": TOKENS, "units_over_real": UNITS} if size in SIZED_BARS else {}
    return {"computed_over_real": BARS[name][size]} if size in BARS[name] else {}


def planned(
    index: index_lib.SampleIndex, data: config.DataSettings, seed: int, layout: plan_lib.Layout
) -> tuple[Row, float]:
    """Figures of the plan of an epoch with all its steps, and the seconds that it took."""
    before = time.perf_counter()
    plan = plan_lib.BatchPlan(index, data, seed, layout)
    plan.check(plan.total_steps)
    seconds = time.perf_counter() - before
    return {
        "computed_over_real": plan.computed_over_real,
        "units_over_real": plan.units_over_real,
        "row_len": [shape.row_len for shape in plan.shapes],
        "rows": [shape.rows for shape in plan.shapes],
    }, seconds


def reference_sampler(index: index_lib.SampleIndex, seed: int) -> Row:
    """The reference's batches: `RANKS` ranks per step, each padded to its own longest conversation. "synchronised"
    counts every rank like the slowest, for which the others wait. The incomplete last step is left out."""
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


def show(index: index_lib.SampleIndex, lines: list[Line], unit: str) -> None:
    """Print the table."""
    from rich import console as rich_console
    from rich import table as rich_table

    table = rich_table.Table(
        title=f"{len(index):,} conversations, {BATCH} a step, mean {index.length.mean():,.0f} tokens and"
        f" {index.units.mean():.2f} {unit}s"
    )
    headings = ("data parallel", "order", "rows x tokens", "computed / real", "at most")
    for heading in (*headings, f"of {unit}s", "at most", "planned in s"):
        table.add_column(heading, justify="left" if heading == "order" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*cells(line))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    console = rich_console.Console()
    (console if console.is_terminal else rich_console.Console(width=150)).print(table)
    packed = sum(line.seconds or 0.0 for line in lines if line.path[0] == "data_parallel")
    print(f"packed plans: {packed:.1f} s (bar: {BAR_SECONDS})")
    drawn = "lengths and sizes of pictures are drawn from models (SOURCES and SIZES in this file)"
    print(f"peak memory {peak:,.0f} MiB; {drawn}, seed {_SEED.value}")


def cells(line: Line) -> list[str]:
    """A row of the table."""
    figures = line.figures
    kinds = {"random": "random", "even": f"dealt evenly, window {WINDOW}", "grouped": "grouped by modality"}
    size, kind = ("-", line.path[0].replace("_", " ")) if len(line.path) == 1 else (line.path[1], kinds[line.path[2]])
    shapes = zip(figures.get("rows", ()), figures.get("row_len", ()), strict=True)
    found = [size, kind, "\n".join(f"{rows} x {row_len:,}" for rows, row_len in shapes) or f"{BATCH} x own longest"]
    for name in ("computed_over_real", "units_over_real"):
        ratio = f"{figures[name]:.3f}" if name in figures else "-"
        if name == "computed_over_real" and "synchronised" in figures:
            ratio += f" ({figures['synchronised']:.3f} with waiting)"
        found += [ratio, f"{line.bars[name]:.2f}" if name in line.bars else "-"]
    return [*found, f"{line.seconds:.1f}" if line.seconds else "-"]


if __name__ == "__main__":
    cli.run(main)
