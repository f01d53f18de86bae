"""Sends the next batch to the devices while they work on the current one, and measures how long they wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
import threading
import time
from types import TracebackType
from typing import Any

import jax
import numpy as np

from vlguard_jax import types
from vlguard_jax.parallel import mesh as mesh_lib

ASK = 0.2  # seconds between two questions whether to stop

Moment = futures.Future[float]  # of time.perf_counter


def to_device(batch: types.Batch, mesh: jax.sharding.Mesh) -> types.Batch:
    """A batch as global arrays, sharded over the data and fsdp axes, from this process's part: the rows and pictures of
    its row shards in order."""
    sharding, shards = mesh_lib.row_sharding(mesh, leading=1), mesh_lib.row_shards(mesh)
    position = {shard: i for i, shard in enumerate(mesh_lib.own_row_shards(mesh))}

    def placed(x: np.ndarray) -> jax.Array:
        each = x.shape[1] // len(position)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            first = position[(index[1].start or 0) // each] * each if each else 0
            return x[:, first : first + each]

        return jax.make_array_from_callback((x.shape[0], each * shards, *x.shape[2:]), sharding, part)

    return jax.tree.map(placed, batch)


class Feed:
    """Hands out the batches of `source` on the devices of `mesh`; a context manager.

    A loop that starts a step, waits for the step before it and then takes the next batch keeps exactly one batch on the
    devices ahead of the running step. Nothing is read from `source` before it is needed.
    """

    def __init__(self, source: Iterator[tuple[int, types.Batch]], mesh: jax.sharding.Mesh):
        self._source, self._mesh = source, mesh
        self._watcher = futures.ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._finished: Moment | None = None

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # JAX must not be shut down during a step; with several processes a step may wait for one that is gone.
        self._watcher.shutdown(wait=jax.process_count() == 1, cancel_futures=True)

    def take(self, stopped: Callable[[], bool] = lambda: False) -> tuple[int, types.Batch, float] | None:
        """(step, batch, seconds the devices were idle for it), or None after the last one. With one process also None
        where `stopped`, asked while the batch is waited for; of several, the others may be in the step already.

        Idle time starts when the last watched step is finished; before the first step every second counts.
        """
        began = time.perf_counter()
        found = self._next(stopped) if jax.process_count() == 1 else next(self._source, None)
        if found is None:
            return None
        step, batch = found
        placed = to_device(batch, self._mesh)
        now = time.perf_counter()
        if self._finished is None:
            return step, placed, now - began
        return step, placed, now - max(began, self._finished.result()) if self._finished.done() else 0.0

    def _next(self, stopped: Callable[[], bool]) -> tuple[int, types.Batch] | None:
        """The source's next, read in a thread: a file that does not come must not keep a stopped run from saving."""
        found: futures.Future[tuple[int, types.Batch] | None] = futures.Future()

        def read() -> None:
            try:
                found.set_result(next(self._source, None))
            except BaseException as e:
                found.set_exception(e)

        threading.Thread(target=read, name="feed-next", daemon=True).start()
        while not futures.wait([found], ASK).done:
            if stopped():
                return None
        return found.result()

    def watch(self, running: Any) -> Moment:
        """The time at which `running`, the output of the step under way, is ready."""
        self._finished = self._watcher.submit(_finished, running)
        return self._finished


def _finished(running: Any) -> float:
    jax.block_until_ready(running)
    return time.perf_counter()
