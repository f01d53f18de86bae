"""The samples of a step, their rows, and the weights of their tokens: a pure function of (epoch, step).

The device computes sum(weight * cross-entropy); every way of averaging is a choice of weights here. `micro_batch` is
the reference's (transformers 4.37.2 trainer.py:2746-2783): the mean over micro-batches of the mean over each one's
tokens. Packing into rows (data/packing.py) changes neither the samples of a step nor their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import math
import pathlib
import time
from typing import Any

from jaxtyping import Float64, Int32, Int64
import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import order
from vlguard_jax.data import packing
from vlguard_jax.data import plan_cache
from vlguard_jax.data import splitting
from vlguard_jax.families import family

KEEP_AFTER = 0.2  # seconds


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the devices divide a step. rows: of a micro-batch, 0: all rows of the step at once. shards: row shards of a
    micro-batch."""

    rows: int = 0
    shards: int = 1


@dataclasses.dataclass(frozen=True)
class Shape:
    """Shape of a step's arrays. rows: of the whole step. row_len: tokens of a row. units, slots: room for pictures in
    every shard of a micro-batch (families/family.py, `Room`)."""

    rows: int
    row_len: int
    units: int
    slots: int

    @property
    def room(self) -> family.Room:
        """Room for pictures in one shard."""
        return family.Room(self.units, self.slots)


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """One entry per sample of the step. samples: positions in the index. groups: the recipe's micro-batch of each.
    token_weight: loss weight of each supervised token of the sample. row: of each sample; the samples of a row are in
    this order."""

    samples: Int64[np.ndarray, " n"]
    groups: Int32[np.ndarray, " n"]
    token_weight: Float64[np.ndarray, " n"]
    row: Int32[np.ndarray, " n"]
    shape: Shape


class BatchPlan:
    """`plan[step]` for any step of a run of `epochs` epochs, in any order; `plan.at(epoch, step)` for a step within an
    epoch.

    Samples, groups and weights depend only on (index, data, seed, epoch, step), rows also on `layout` and the length of
    the run, because its steps share their shapes. Memory: 12 bytes per sample and epoch.

    With `cache`, a plan that took longer than KEEP_AFTER is cached in that folder.

    Attributes: `layout`; `shapes`, those of the run; `total_steps`, updates of the run, rounded as the reference does.

    Raises:
      UserError: no sample, a replay file that does not fit, or `layout.rows` not divisible by the shards.
    """

    def __init__(
        self,
        index: index_lib.SampleIndex,
        data: config.DataSettings,
        seed: int,
        layout: Layout | None = None,
        epochs: float = 1.0,
        cache: pathlib.Path | None = None,
    ):
        if not len(index):
            raise errors.UserError("config.data.sources hold no conversation at all")
        self.index = index
        self.data = data
        self.seed = seed
        self.layout = layout or Layout()
        rows, shards = self.layout.rows, self.layout.shards
        if rows % shards:
            wrong = f"config.run.rows={rows} must be a multiple of the {shards} row shards (config.mesh data x fsdp)"
            raise errors.UserError(f"{wrong}: take {-(-rows // shards) * shards}, or 0 for all rows at once")
        self._replay = _read_replay(data.replay, len(index), epochs) if data.order == "replay" else None
        self.total_steps = math.ceil(epochs * self.steps_per_epoch)
        kept = self._made() if cache is None else self._kept(cache)
        self._samples, self._row, self._shape = kept.samples, kept.row, kept.which
        self.shapes = tuple(Shape(*map(int, shape)) for shape in kept.shapes)

    @property
    def steps_per_epoch(self) -> int:
        """Steps for every sample once; the last one is short, or refilled from the epoch's start."""
        size = len(self._replay[0]) if self._replay is not None else len(self.index)
        return math.ceil(size / self.data.batch_size)

    @property
    def computed_over_real(self) -> float:
        """Computed tokens over tokens of conversations, in the whole run."""
        computed = np.array([shape.rows * shape.row_len for shape in self.shapes])[self._shape].sum()
        return float(computed / _of(self.index.length, self._samples).sum())

    @property
    def units_over_real(self) -> float:
        """Units computed by the tower over units of pictures, in the whole run; 1 if there are none."""
        groups = [shape.rows // (self.layout.rows or shape.rows) * self.layout.shards for shape in self.shapes]
        room = np.array([shape.units * n for shape, n in zip(self.shapes, groups, strict=True)])[self._shape].sum()
        real = _of(self.index.units, self._samples).sum()
        return float(room / real) if real else 1.0

    def notes(self) -> list[str]:
        """The shapes of the steps, and changes of their order, one line each."""
        steps = np.bincount(self._shape, minlength=len(self.shapes))
        shapes = [
            f"{shape.rows} x {shape.row_len:,} tokens ({n:,} steps)"
            for shape, n in zip(self.shapes, steps, strict=True)
        ]
        rows = "packed rows" if self.data.mode == "pack" else "rows"
        lines = [
            f"{rows}: {', '.join(shapes)}; {self.computed_over_real:.3f} computed tokens per token of a conversation"
        ]
        if self._replay is not None:
            lines += _replay_notes(self._replay, len(self.index))
        if self.data.deal_window:
            kind = " of one modality" if self.data.order == "modality_length" else ""
            lines.append(
                f"ORDER CHANGED (config.data.deal_window={self.data.deal_window}): in every {self.data.deal_window}"
                f" consecutive steps the conversations{kind} are dealt to the steps{kind} anew, so that these have"
                " about the same number of tokens"
            )
        return lines

    def check(self, steps: int) -> None:
        """Check the first `steps` steps of the run before anything is computed.

        Raises:
          UserError: one of them has a group without a supervised token, unless `on_empty_group` allows it.
        """
        if self.data.on_empty_group != "error":
            return
        size = {"micro_batch": self.data.group_size, "tokens": self.data.batch_size, "sample": 1}[
            self.data.normalization
        ]
        samples = self._samples[:steps].reshape(-1, self.data.batch_size // size, size)
        tokens = np.where(samples < 0, 0, self.index.supervised[samples]).sum(2)
        present = (samples >= 0).any(2)
        for step in np.flatnonzero((present & (tokens == 0)).any(1)):
            self[int(step)]

    def __getitem__(self, step: int) -> StepPlan:
        return self.at(*divmod(step, self.steps_per_epoch))

    def at(self, epoch: int, step: int) -> StepPlan:
        """The plan of `step` within `epoch`, both from 0.

        Raises:
          UserError: a group has no supervised token, unless `on_empty_group` allows it.
          IndexError: the run has no such step.
        """
        position = epoch * self.steps_per_epoch + step
        if not 0 <= position < self.total_steps:
            raise IndexError(f"epoch {epoch}, step {step} is not in a run of {self.total_steps} steps")
        samples = self._samples[position]
        samples = samples[samples >= 0]
        groups = (np.arange(len(samples)) // self.data.group_size).astype(np.int32)
        return StepPlan(
            samples=samples,
            groups=groups,
            token_weight=self._weights(samples, groups, f"epoch {epoch}, step {step}"),
            row=self._row[position, : len(samples)],
            shape=self.shapes[self._shape[position]],
        )

    def _made(self) -> plan_cache.Kept:
        epochs_begun = range(-(-self.total_steps // self.steps_per_epoch))
        samples = np.concatenate([self._epoch(epoch) for epoch in epochs_begun])[: self.total_steps]
        shapes, which, row = self._rows(samples)
        return plan_cache.Kept(
            samples, row, which, np.asarray([dataclasses.astuple(shape) for shape in shapes], np.int64)
        )

    def _kept(self, cache: pathlib.Path) -> plan_cache.Kept:
        replay = None if self._replay is None else [order_.tolist() for order_ in self._replay]
        key = plan_cache.key(
            self.index, self.data, self.seed, dataclasses.astuple(self.layout), self.total_steps, replay
        )
        if (known := plan_cache.load(cache, key, len(self.index))) is not None:
            return known
        began = time.perf_counter()
        made = self._made()
        if time.perf_counter() - began > KEEP_AFTER:
            plan_cache.save(cache, key, made)
        return made

    def _epoch(self, epoch: int) -> Int64[np.ndarray, "s b"]:
        """The samples of every step of an epoch, -1 where a short last step has none."""
        data, size = self.data, self.data.batch_size
        samples = self._order(epoch)
        missing = -len(samples) % size
        # accelerate 0.21 data_loader.py (even_batches): missing samples come from the start of the epoch
        refill = np.resize(samples, missing) if data.end_of_epoch == "reference" else np.full(missing, -1)
        steps = np.concatenate([samples, refill]).reshape(-1, size)
        return self._dealt(steps) if data.deal_window else steps

    def _order(self, epoch: int) -> Int64[np.ndarray, " m"]:
        data = self.data
        if self._replay is not None:
            return self._replay[epoch % len(self._replay)]
        return order.epoch_order(
            data.order, self.index.modality_length, data.batch_size, data.group_size, self.seed, epoch
        )

    def _dealt(self, steps: Int64[np.ndarray, "s b"]) -> Int64[np.ndarray, "s b"]:
        """Balance the steps' tokens, except of a short step.

        Steps of one modality get groups as the reference forms them.
        """
        data = self.data
        full = steps[(steps >= 0).all(1)]
        words = self.index.modality_length
        grouped = data.order == "modality_length"
        kinds = order.step_kinds(full, words) if grouped else np.full(len(full), order.PICTURES, np.int64)
        full = order.deal_windows(full, self.index.length, kinds, data.deal_window)
        if grouped:
            pure = kinds != order.MIXED
            full[pure] = order.regroup(np.abs(words), full[pure], data.batch_size // data.group_size)
        return np.concatenate([full, steps[len(full) :]])

    def _rows(
        self, samples: Int64[np.ndarray, "s b"]
    ) -> tuple[tuple[Shape, ...], Int32[np.ndarray, " s"], Int32[np.ndarray, "s b"]]:
        """(shapes of the run, index of each step's shape, row of each sample)."""
        layout = self.layout
        lengths, units, slots = (_of(of, samples) for of in (self.index.length, self.index.units, self.index.slots))
        which, row = np.empty(len(lengths), np.int32), np.empty(lengths.shape, np.int32)
        shapes: list[Shape] = []
        for steps, packed in self._classes(lengths, units):
            in_shard = (layout.rows or packed.rows) // layout.shards
            most_slots = packing.most_in_shard(slots[steps], packed.row, packed.rows, in_shard)
            shape = Shape(packed.rows, packed.row_len, packed.units, most_slots)
            if shape not in shapes:
                shapes.append(shape)
            row[steps], which[steps] = packed.row, shapes.index(shape)
        return tuple(shapes), which, row

    def _classes(
        self, lengths: Int64[np.ndarray, "s b"], units: Int64[np.ndarray, "s b"]
    ) -> list[tuple[Int64[np.ndarray, " k"], packing.Packed]]:
        """Classes of steps that share a shape, with their packings."""
        data, layout = self.data, self.layout
        sizes = {"multiple": data.length_multiple, "micro_rows": layout.rows, "shards": layout.shards}
        pack: Callable[..., packing.Packed]
        if data.mode == "pack":
            sizes["max_row_len"] = data.max_row_len
            differ = _differ(self.index)
            count = data.shapes or (2 if data.order == "modality_length" else 1) + differ
            if differ:
                return splitting.classes(lengths, units, count, splitting.Sizes(**sizes))
            pack, needs = packing.pack, packing.bounds(lengths, **sizes)
        else:
            pack, needs = packing.pad, packing.rounded_up(lengths.max(1), data.length_multiple)
            count = data.shapes or 4
        levels = packing.levels(needs, count)
        classes = [np.flatnonzero(levels == level) for level in range(levels.max() + 1)]
        return [(steps, pack(lengths[steps], units[steps], **sizes)) for steps in classes]

    def _weights(
        self, samples: Int64[np.ndarray, " n"], groups: Int32[np.ndarray, " n"], where: str
    ) -> Float64[np.ndarray, " n"]:
        divided_over = {
            "micro_batch": groups,
            "tokens": np.zeros_like(groups),
            "sample": np.arange(len(groups), dtype=np.int32),
        }
        units = divided_over[self.data.normalization]
        tokens = np.bincount(units, weights=self.index.supervised[samples])
        empty = np.flatnonzero(tokens == 0)
        if len(empty) and self.data.on_empty_group == "error":
            names = [self.index.ids[i] for i in samples[units == empty[0]]]
            raise errors.UserError(
                f"{where}: no supervised token in the micro-batch of records {_first(names)}; remove them, or set"
                ' config.data.on_empty_group="zero" to let it count as zero loss'
            )
        return 1.0 / (len(tokens) * np.where(tokens == 0, np.inf, tokens)[units])


def _of(values: Int64[np.ndarray, " n"], samples: Int64[np.ndarray, "s b"]) -> Int64[np.ndarray, "s b"]:
    """`values` of the samples, 0 where there is no sample."""
    return np.where(samples < 0, 0, values[samples])


def _differ(index: index_lib.SampleIndex) -> bool:
    """Whether some pictures take more than others."""
    shown = index.pictures > 0
    return any(np.ptp(each[shown] / index.pictures[shown]) > 0 for each in (index.units, index.slots) if shown.any())


def _first(names: Sequence[str], count: int = 4) -> str:
    shown = ", ".join(repr(name) for name in names[:count])
    return f"{shown} and {len(names) - count} more" if len(names) > count else shown


def _read_replay(path: str, size: int, epochs: float) -> list[Int64[np.ndarray, " m"]]:
    """A list of sample positions, used in every epoch, or one such list per epoch. Positions may be repeated, as in the
    reference's recorded orders, or missing (`BatchPlan.notes` counts both)."""
    values = files.read_json(path)
    if not isinstance(values, list) or not values:
        raise errors.UserError(
            f"{path}: must hold a JSON list of sample positions, or one list per epoch, not {files.kind(values)}"
        )
    orders = [_replayed(each, size, path) for each in (values if isinstance(values[0], list) else [values])]
    if len({len(each) for each in orders}) > 1:
        raise errors.UserError(f"{path}: every epoch must have the same number of samples")
    if 1 < len(orders) < math.ceil(epochs):
        raise errors.UserError(
            f"{path}: {len(orders)} orders for config.optimizer.epochs={epochs:g}: give one for each epoch, or"
            " one for all"
        )
    return orders


def _replay_notes(orders: Sequence[Int64[np.ndarray, " m"]], size: int) -> list[str]:
    seen = np.stack([np.bincount(each, minlength=size) for each in orders])
    never, twice = int((seen == 0).any(0).sum()), int((seen > 1).any(0).sum())
    if not never and not twice:
        return []
    return [
        f"config.data.replay: of {size:,} conversations {never:,} are left out of an epoch, {twice:,} come more"
        " than once in one"
    ]


def _replayed(values: Any, size: int, path: str) -> Int64[np.ndarray, " m"]:
    if not isinstance(values, list) or not values:
        raise errors.UserError(
            f"{path}: an epoch's order must be a JSON list of sample positions, not {files.kind(values)}"
        )
    for i, value in enumerate(values):
        if type(value) is not int or not 0 <= value < size:
            raise errors.UserError(
                f"{path}: entry {i} is {errors.short(value)}; positions are whole numbers from 0 to {size - 1}, as the"
                f" sources hold {size} conversations"
            )
    return np.asarray(values, np.int64)
