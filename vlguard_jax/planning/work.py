"""The tokens, rows and pictures of a step, from the sample index or, without one, from assumed lengths."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import tomllib
from typing import Any

import numpy as np

from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families import family
from vlguard_jax.families import table as families

TABLE = pathlib.Path(__file__).with_name("assumptions.toml")
SAMPLED = 8192  # conversations drawn to represent a larger mixture
LIKE = {"tfds": "vlguard"}


@functools.cache
def assumptions() -> dict[str, Any]:
    """The table of assumptions.toml."""
    with TABLE.open("rb") as file:
        return tomllib.load(file)


@dataclasses.dataclass(frozen=True)
class Work:
    """Of a mean step: tokens and squared lengths of the conversations, `computed` and `computed_squares` of the rows,
    `pictures`, their `units` for the tower and the `unit_room` that is computed. Of the largest step: rows of one
    micro-batch, row_len, room for pictures in a row shard. steps: of the run; micro: micro-batches; shapes: compiled
    programs."""

    steps: int
    shapes: int
    conversations: int
    tokens: float
    squares: float
    computed: float
    computed_squares: float
    pictures: float
    units: float
    unit_room: float
    rows: int
    row_len: int
    room: family.Room
    micro: int
    assumed: tuple[str, ...]


def assumed_index(
    settings: config.DataSettings, model: family.Config, seed: int = 0
) -> tuple[index_lib.SampleIndex, int, tuple[str, ...]]:
    """(index of drawn lengths with the sources' shares, number of conversations it represents, assumptions in
    words)."""
    table, rng = assumptions()["lengths"], np.random.default_rng(seed)
    sees, max_len = families.of(model).pictures, settings.max_len or families.of(model).max_len
    size = types.Size(*table["picture_pixels"])
    one = sees.extents(model, [size])[0] if sees else types.Extent(0, 0)
    named = {
        name: table[name if name == "text_safety" else LIKE.get(source.format, source.format)]
        for name, source in settings.sources.items()
    }
    wanted = {name: (s.count or s.expect or named[name]["count"]) * s.weight for name, s in settings.sources.items()}
    whole = round(sum(wanted.values()))
    share = min(1.0, SAMPLED / max(1, whole))
    lengths, pictures, sources = [], [], []
    for i, (name, count) in enumerate(wanted.items()):
        entry, drawn = named[name], max(1, round(count * share))
        plain = rng.random(drawn) < entry.get("text_only", 0.0)
        median = np.where(plain, entry.get("text_median", entry["median"]), entry["median"])
        sigma = np.where(plain, entry.get("text_sigma", entry["sigma"]), entry["sigma"])
        text = np.ceil(median * np.exp(sigma * rng.normal(size=drawn))).astype(np.int64)
        lengths.append(np.minimum(max_len, table["prompt"] + text + np.where(plain, 0, one.slots)))
        pictures.append(np.where(plain, 0, 1 if one.slots else 0).astype(np.int64))
        sources.append(np.full(drawn, i, np.int32))
    length, shown = np.concatenate(lengths), np.concatenate(pictures)
    index = index_lib.SampleIndex(
        length=length,
        pictures=shown,
        units=shown * one.units,
        slots=shown * one.slots,
        supervised=np.ones(len(length), np.int64),
        modality_length=np.where(shown > 0, length, -length),
        ids=tuple(map(str, range(len(length)))),
        source=np.concatenate(sources),
        source_names=tuple(settings.sources),
    )
    notes = [
        f"lengths of {name}: {named[name]['source']}, mean {length[index.source == i].mean():,.0f} tokens"
        for i, name in enumerate(named)
    ]
    if sees and sees.sized:
        notes.append(f"pictures of {size.width} x {size.height} pixels: {one.units} {sees.unit}s, {one.slots:,} tokens")
    return index, whole, tuple(notes)


def from_assumption(settings: config.TrainConfig, model: family.Config, shards: int) -> Work:
    """The steps of a run without data, planned like a real one on `shards` row shards.

    Raises:
      UserError: as `plan.BatchPlan`.
    """
    index, whole, notes = assumed_index(settings.data, model)
    epochs = settings.optimizer.epochs if whole <= SAMPLED else 1.0
    data = settings.data
    if data.order == "replay":
        data = dataclasses.replace(data, order="shuffle", replay="")
    plan = plan_lib.BatchPlan(index, data, settings.seed, plan_lib.Layout(settings.run.rows, shards), epochs)
    total = math.ceil(settings.optimizer.epochs * math.ceil(whole / data.batch_size))
    return from_plan(plan, min(total, settings.optimizer.max_steps or total), notes)


def from_plan(plan: plan_lib.BatchPlan, steps: int, assumed: tuple[str, ...] = ()) -> Work:
    """The steps of a planned run of `steps` updates; a plan of fewer steps represents all of them."""
    each = [plan[step] for step in _some(min(plan.total_steps, steps))]
    shards = plan.layout.shards
    length, shown, units = plan.index.length.astype(np.float64), plan.index.pictures, plan.index.units
    micro = [step.shape.rows // (plan.layout.rows or step.shape.rows) for step in each]
    computed = np.array([step.shape.rows * step.shape.row_len for step in each], np.float64)
    largest = max(each, key=lambda step: (step.shape.rows * step.shape.row_len, step.shape.units)).shape
    return Work(
        steps=steps,
        shapes=len({step.shape for step in each}),
        conversations=plan.data.batch_size,
        tokens=float(np.mean([length[step.samples].sum() for step in each])),
        squares=float(np.mean([(length[step.samples] ** 2).sum() for step in each])),
        computed=float(computed.mean()),
        computed_squares=float(np.mean([step.shape.rows * float(step.shape.row_len) ** 2 for step in each])),
        pictures=float(np.mean([shown[step.samples].sum() for step in each])),
        units=float(np.mean([units[step.samples].sum() for step in each])),
        unit_room=float(np.mean([step.shape.units * shards * count for step, count in zip(each, micro, strict=True)])),
        rows=plan.layout.rows or largest.rows,
        row_len=largest.row_len,
        room=family.Room(max(step.shape.units for step in each), max(step.shape.slots for step in each)),
        micro=max(micro),
        assumed=assumed,
    )


def _some(total: int, most: int = 512) -> list[int]:
    """Steps spread evenly over the run; all steps of a short one."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(total, most))})
