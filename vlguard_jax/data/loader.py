"""From the plan to batches, step by step, on any number of hosts.

One Grain element is one step's slice for one host, so the order depends neither on threads nor worker processes nor
hosts, and a resumed run needs only its step number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import functools

from absl import flags
import grain
import numpy as np

from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib

AHEAD = 16  # most steps to read ahead, however small they are


@dataclasses.dataclass(frozen=True)
class StepSource:
    """Random access to the batches of steps `start` .. `stop` - 1, for this host.

    The arrays have a leading axis of micro-batches; micro-batch a holds rows [a * r, (a + 1) * r) of the step. Its rows
    are split into `plan.layout.shards` shards, each with the same room for pictures; `shards` are those of this host.
    Slots count over the whole micro-batch, so the concatenated arrays of the shards are one batch.
    """

    plan: plan_lib.BatchPlan
    mixture: mixtures.Mixture
    start: int
    stop: int
    shards: tuple[int, ...]

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, position: int) -> tuple[int, types.Batch]:
        step = self.start + int(position)
        step_plan = self.plan[step]
        rows: list[list[int]] = [[] for _ in range(step_plan.shape.rows)]
        for place, row in enumerate(step_plan.row.tolist()):
            rows[row].append(place)
        per_micro_batch = self.plan.layout.rows or step_plan.shape.rows
        per_shard = per_micro_batch // self.plan.layout.shards
        micro_batches = []
        for first in range(0, step_plan.shape.rows, per_micro_batch):
            starts = [first + shard * per_shard for shard in self.shards]
            parts = [
                (shard, self._shard(step_plan, rows[at : at + per_shard]))
                for at, shard in zip(starts, self.shards, strict=True)
            ]
            micro_batches.append(batches.joined(parts, step_plan.shape.room))
        return step, batches.combined(micro_batches, np.stack)

    def step_bytes(self) -> int:
        """Bytes of the largest step on this host."""
        share = len(self.shards) / self.plan.layout.shards
        sizes = []
        for shape in self.plan.shapes:
            micro_batches = shape.rows // (self.plan.layout.rows or shape.rows)
            arrays = batches.pooled(self.mixture.tokenization.model, (), shape.room)
            pictures = sum(array.nbytes for array in arrays.values())
            rows = len(types.Batch._fields) * 4 * shape.rows * shape.row_len
            sizes.append(share * (rows + micro_batches * self.plan.layout.shards * pictures))
        return int(max(sizes))

    def _shard(self, step_plan: plan_lib.StepPlan, rows: list[list[int]]) -> types.Batch:
        needed = [int(step_plan.samples[place]) for row in rows for place in row]
        threads, pictured = self.plan.data.read_threads, self.mixture.pictured
        read = iter(_pool(threads).map(pictured, needed) if threads else map(pictured, needed))
        return batches.collate(
            [[next(read) for _ in row] for row in rows],
            [[float(step_plan.token_weight[place]) for place in row] for row in rows],
            [[int(self.mixture.index.source[step_plan.samples[place]]) for place in row] for row in rows],
            rows,
            row_len=step_plan.shape.row_len,
            room=step_plan.shape.room,
            model=self.mixture.tokenization.model,
        )


@functools.cache
def _pool(threads: int) -> futures.ThreadPoolExecutor:
    """The thread pool of all loaders of a process."""
    return futures.ThreadPoolExecutor(threads, thread_name_prefix="read")


class Loader:
    """Iterates over (step, Batch) from `start_step` up to `stop_step`; see `StepSource` for the layout.

    The conversations of a step are read in `data.read_threads` threads, in each of `data.read_workers` processes if
    there are any. As many steps are read ahead as fit `data.prefetch_mib`, at least one. `shards`: those of this host;
    None: all.
    """

    def __init__(
        self,
        plan: plan_lib.BatchPlan,
        mixture: mixtures.Mixture,
        *,
        stop_step: int,
        start_step: int = 0,
        shards: Sequence[int] | None = None,
    ):
        own = tuple(range(plan.layout.shards) if shards is None else shards)
        self.source = StepSource(plan, mixture, start_step, stop_step, own)

    def __iter__(self) -> Iterator[tuple[int, types.Batch]]:
        if not len(self.source):
            return
        data = self.source.plan.data
        steps = max(1, min(AHEAD, data.prefetch_mib * 2**20 // max(1, self.source.step_bytes())))
        ahead = 1 if data.read_threads else 0  # one thread goes through the steps; the pool's threads share each
        options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=steps * ahead)
        dataset = grain.MapDataset.source(self.source).to_iter_dataset(options)
        if data.read_workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain reads its flags in a worker even if no program has parsed any
            per_worker = max(1, steps // data.read_workers)
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=data.read_workers, per_worker_buffer_size=per_worker)
            )
        yield from dataset
