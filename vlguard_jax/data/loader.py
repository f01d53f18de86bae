"""From the plan to batches, step by step, on any number of hosts.

One Grain element is one step's slice for one host, so the order depends neither on read threads nor on hosts, and a resumed run
needs nothing but its step number.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses

import grain
import numpy as np

from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.data import images
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.models import config as model_config


@dataclasses.dataclass(frozen=True)
class StepSource:
    """Random access to the batches of steps `start` .. `stop` - 1, for this host.

    `rows` conversations make one micro-batch; the step's arrays have a leading axis of batch_size / rows micro-batches, and micro-batch
    a holds samples [a * rows, (a + 1) * rows) of the step. Host h of H takes an equal run of each micro-batch's rows, and its
    image slots count from h * N, N being the pictures of one host's slice: the hosts' arrays, put one after the other, are one batch.
    """

    plan: plan_lib.BatchPlan
    mixture: mixtures.Mixture
    vision: model_config.VisionConfig | None
    image_mode: str
    rows: int
    start: int
    stop: int
    host_index: int = 0
    host_count: int = 1

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def num_images(self) -> int:
        """N of this host's slice of a micro-batch: room for the most pictures any sample of the run has, in every row."""
        return self.rows // self.host_count * int(self.mixture.index.pictures.max(initial=0))

    def __getitem__(self, position: int) -> tuple[int, types.Batch]:
        step = self.start + int(position)
        step_plan = self.plan[step]
        per_host = self.rows // self.host_count
        micro_batches = []
        for first in range(0, self.plan.data.batch_size, self.rows):
            begin = first + self.host_index * per_host
            micro_batches.append(self._micro_batch(step_plan, range(begin, begin + per_host)))
        return step, types.Batch(*(np.stack(arrays) for arrays in zip(*micro_batches, strict=True)))

    def _micro_batch(self, step_plan: plan_lib.StepPlan, places: range) -> types.Batch:
        present = [i for i in places if i < len(step_plan.samples)]
        empty = len(places) - len(present)  # rows that a short last step leaves over
        rows = [[self._sample(int(step_plan.samples[i]))] for i in present] + [[]] * empty
        weights = [[float(step_plan.token_weight[i])] for i in present] + [[]] * empty
        patches = self.vision.num_patches if self.vision else 0
        batch = batches.collate(
            rows,
            weights,
            row_len=step_plan.row_len,
            num_images=self.num_images,
            patches=patches,
            image_size=self.vision.image_size if self.vision else 0,
        )
        shift = self.host_index * self.num_images * patches
        return batch._replace(image_slot=np.where(batch.image_slot >= 0, batch.image_slot + np.int32(shift), np.int32(-1)))

    def _sample(self, i: int) -> batches.Sample:
        sample = self.mixture.samples[i]
        if not sample.num_pictures or self.vision is None:
            return sample
        origin = self.mixture.records[i].origin
        loaded = (
            images.load_image(path, self.image_mode, self.vision.image_size, self.vision.image_mean, origin=origin)
            for path in self.mixture.image_paths(i)
        )
        return dataclasses.replace(sample, images=tuple(loaded))


class Loader:
    """Iterates over (step, Batch) from `start_step` up to `stop_step`, reading ahead in `read_threads` threads.

    Every array of the batch has the leading axis A, its rows are this host's. See `StepSource` for the layout.

    Raises:
      UserError: the rows cannot be divided, or the conversations have pictures and the model no vision tower.
    """

    def __init__(
        self,
        plan: plan_lib.BatchPlan,
        mixture: mixtures.Mixture,
        vision: model_config.VisionConfig | None,
        *,
        image_mode: str,
        stop_step: int,
        start_step: int = 0,
        rows: int = 0,
        host_index: int = 0,
        host_count: int = 1,
    ):
        rows = rows or plan.data.batch_size
        if plan.data.batch_size % rows or rows % host_count:
            raise errors.UserError(
                f"config.run.rows={rows} must divide config.data.batch_size={plan.data.batch_size}"
                f" and be a multiple of the {host_count} hosts"
            )
        if vision is None and mixture.index.pictures.any():
            raise errors.UserError("the conversations have pictures, but the model has no vision tower")
        self.source = StepSource(plan, mixture, vision, image_mode, rows, start_step, stop_step, host_index, host_count)

    def __iter__(self) -> Iterator[tuple[int, types.Batch]]:
        if not len(self.source):
            return
        threads = self.source.plan.data.read_threads
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        yield from grain.MapDataset.source(self.source).to_iter_dataset(options)
