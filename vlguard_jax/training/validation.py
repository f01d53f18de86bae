r"""The loss on conversations that are not trained on, in the course of a training.

  c.validation.every, c.validation.share = 25, 0.05  # a share of config.data.sources, or files of their own:
  c.validation.sources = {"mine": config.source(path="held_out.json", images="pictures")}

It is the loss that is trained on (config.loss), without dropout, averaged over all supervised tokens of all these
conversations: not over batches, so that neither their layout nor the number of devices matters. The training reads
nothing of it. metrics.jsonl gets a line with "validation/loss" and, by source, "validation/loss/NAME".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import pathlib
import time

import jax
import numpy as np

from vlguard_jax import config
from vlguard_jax.data import loader
from vlguard_jax.data import mixtures
from vlguard_jax.families import functional
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import processes
from vlguard_jax.training import feed
from vlguard_jax.training import losses
from vlguard_jax.training import metrics
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import setup
from vlguard_jax.training import step as step_lib


class Validator:
    """Measures a run that goes on after update `first`; every process calls every method."""

    def __init__(
        self,
        settings: config.TrainConfig,
        data: setup.Data,
        program: program_lib.Program,
        workdir: pathlib.Path,
        first: int,
    ):
        self._how, self._program, self._last = settings.validation, program, data.last_update
        self._held = held = data.held_out
        self._done: set[int] = set()
        if held is None:
            return
        kept: list[int] = processes.from_first(lambda: metrics.validated(workdir, first))
        self._done.update(kept)
        measure = step_lib.build_measure(
            program.model,
            losses.get(settings.loss),
            loss_args=dict(settings.loss_args),
            loss_chunk=settings.run.loss_chunk,
            sources=len(held.mixture.sources),
        )
        self._measure = jax.jit(measure, out_shardings=mesh_lib.replicated(program.mesh))

    def due(self, step: int) -> bool:
        """Whether to measure after update `step`, and not done yet."""
        if self._held is None or step in self._done:
            return False
        at_end = self._how.at_end and step == self._last
        return at_end or (step % self._how.every == 0 if step else self._how.at_start)

    def measure(
        self,
        state: step_lib.TrainState,
        frozen: functional.Params,
        writer: metrics.Writer,
        stopped: Callable[[], bool],
    ) -> bool:
        """Measure and record; False where `stopped`, asked after each batch, cut it short."""
        began, step = time.perf_counter(), int(state.step)
        found = self.computed(state, frozen, stopped)
        if found is None:
            return False
        self._done.add(step)
        writer.validated(step, {**found, "validation/seconds": time.perf_counter() - began})
        return True

    def computed(
        self, state: step_lib.TrainState, frozen: functional.Params, stopped: Callable[[], bool]
    ) -> dict[str, float] | None:
        """The means over supervised tokens, by name, as metrics.jsonl has them; None where `stopped`."""
        assert self._held is not None
        mixture, plan, program = self._held.mixture, self._held.plan, self._program
        own, totals = mesh_lib.own_row_shards(program.mesh), dict[str, np.ndarray]()
        for step, batch in loader.Loader(plan, mixture, stop_step=plan.total_steps, shards=own):
            placed = feed.to_device(batch, program.mesh)
            fetched = jax.device_get(self._measure(state.params, frozen, program.reference, placed))
            tokens = float(mixture.index.supervised[plan[step].samples].sum())
            for name, value in fetched.items():
                # weights of a step are one over its tokens; sums by source have none
                scaled = np.asarray(value, np.float64) * (1.0 if name == losses.BY_SOURCE else tokens)
                totals[name] = totals.get(name, 0.0) + scaled
            if stopped():
                return None
        return _means(totals, mixture)


def _means(totals: Mapping[str, np.ndarray], mixture: mixtures.Mixture) -> dict[str, float]:
    index = mixture.index
    of_source = np.bincount(index.source, index.supervised, len(index.source_names))
    tokens = float(index.supervised.sum())
    found = {f"validation/{name}": float(total) / tokens for name, total in totals.items() if name != losses.BY_SOURCE}
    sums = totals.get(losses.BY_SOURCE, np.zeros(0))
    for name, total, n in zip(index.source_names, sums, of_source, strict=False):
        if n:
            found[f"validation/loss/{name}"] = float(total) / float(n)
    return {**found, "validation/supervised_tokens": tokens}
