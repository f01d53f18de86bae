"""Which samples a step holds and how much each of their tokens weighs: a pure function of (epoch, step).

The device computes sum(weight * cross-entropy); every way of averaging is a choice of weights here. `micro_batch` is the
reference's (transformers 4.37.2 trainer.py:2746-2783): the mean over micro-batches of the mean over each one's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import math

from jaxtyping import Float64, Int32, Int64
import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import order
from vlguard_jax.data import records


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """samples: positions in the index. groups: which micro-batch of the recipe each belongs to. token_weight: loss weight of each
    supervised token of that sample. row_len: tokens in a row, the longest sample rounded up."""

    samples: Int64[np.ndarray, " n"]
    groups: Int32[np.ndarray, " n"]
    token_weight: Float64[np.ndarray, " n"]
    row_len: int


class BatchPlan:
    """`plan[step]` for any step of the run, in any order; `plan.at(epoch, step)` for a step within an epoch.

    Mode "pad": one conversation a row. Memory: the order of the last two epochs that were asked for.
    """

    def __init__(self, index: index_lib.SampleIndex, data: config.DataSettings, seed: int):
        if not len(index):
            raise errors.UserError("config.data.sources hold no conversation at all")
        self.index = index
        self.data = data
        self.seed = seed
        self._replay = _read_replay(data.replay, len(index)) if data.order == "replay" else None
        self._order = functools.lru_cache(maxsize=2)(self._epoch_order)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every sample; the last one is short, or refilled from the epoch's start."""
        size = len(self._replay[0]) if self._replay is not None else len(self.index)
        return math.ceil(size / self.data.batch_size)

    def total_steps(self, epochs: float | int) -> int:
        """Updates in `epochs` epochs, as the reference rounds them."""
        return math.ceil(epochs * self.steps_per_epoch)

    def check(self, steps: int) -> None:
        """Look at the first `steps` steps of the run before anything is paid for.

        Raises:
          UserError: one of them holds a group without a supervised token, unless `on_empty_group` allows it.
        """
        for step in range(steps):
            self[step]

    def __getitem__(self, step: int) -> StepPlan:
        return self.at(*divmod(step, self.steps_per_epoch))

    def at(self, epoch: int, step: int) -> StepPlan:
        """The plan of `step` within `epoch`, both from 0.

        Raises:
          UserError: a group has no supervised token, unless `on_empty_group` allows it.
        """
        size = self.data.batch_size
        order_ = self._order(epoch)
        samples = order_[step * size : (step + 1) * size]
        if self.data.end_of_epoch == "reference":
            # accelerate 0.21 data_loader.py (even_batches): what is missing comes from the start of the epoch
            samples = np.concatenate([samples, np.resize(order_, size - len(samples))])
        groups = (np.arange(len(samples)) // self.data.group_size).astype(np.int32)
        longest = int(self.index.length[samples].max())
        multiple = self.data.length_multiple
        return StepPlan(
            samples=samples,
            groups=groups,
            token_weight=self._weights(samples, groups, f"epoch {epoch}, step {step}"),
            row_len=math.ceil(longest / multiple) * multiple,
        )

    def _epoch_order(self, epoch: int) -> Int64[np.ndarray, " m"]:
        data = self.data
        if self._replay is not None:
            return self._replay[epoch % len(self._replay)]
        lengths = self.index.modality_length.tolist()
        return order.epoch_order(data.order, lengths, data.batch_size, data.group_size, self.seed, epoch)

    def _weights(self, samples: Int64[np.ndarray, " n"], groups: Int32[np.ndarray, " n"], where: str) -> Float64[np.ndarray, " n"]:
        divided_over = {"micro_batch": groups, "tokens": np.zeros_like(groups), "sample": np.arange(len(groups), dtype=np.int32)}
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


def _first(names: Sequence[str], count: int = 4) -> str:
    shown = ", ".join(repr(name) for name in names[:count])
    return f"{shown} and {len(names) - count} more" if len(names) > count else shown


def _read_replay(path: str, size: int) -> list[Int64[np.ndarray, " m"]]:
    """A list of sample positions, used in every epoch, or one such list per epoch."""
    values = records.read_json(path)
    epochs = values if isinstance(values, list) and values and isinstance(values[0], list) else [values]
    orders = []
    for values in epochs:
        if not isinstance(values, list) or not values or not all(type(i) is int and 0 <= i < size for i in values):
            raise errors.UserError(f"{path}: must be a JSON list of sample positions from 0 to {size - 1}, or one list per epoch")
        orders.append(np.asarray(values, np.int64))
    if len({len(values) for values in orders}) > 1:
        raise errors.UserError(f"{path}: every epoch must have the same number of samples")
    return orders
