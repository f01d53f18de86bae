"""The metrics of updates on their way from the devices to the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import time

import jax

from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.training import feed
from vlguard_jax.training import metrics
from vlguard_jax.training import step as step_lib

Span = tuple[float, float]  # of time.perf_counter
NOT_AT_ALL = 0.0, 0.0


class Log:
    """Fetches metrics one update late, so that the devices never wait for the host.

    claim: called once the first update is done. note: called with every update and its metrics, in order.
    """

    def __init__(
        self,
        writer: metrics.Writer,
        settings: config.TrainConfig,
        last_update: int,
        claim: Callable[[], None],
        note: Callable[[int, dict[str, float]], None],
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._writer, self._settings, self._last_update = writer, settings, last_update
        self._claim, self._note = claim, note
        self._pending: tuple[int, step_lib.Metrics, feed.Moment, dict[str, float], float, Span] | None = None
        self._clock = clock
        self._before = clock()  # when the previous update finished
        self._seconds = self._waited = 0.0  # over all updates but the first, for which all input is waited for
        self._begun = False
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()  # of the batches so far
        self._compiling = NOT_AT_ALL  # for the update that was started last
        self.last: dict[str, float] = {}
        self.in_a_row = 0  # updates skipped since the last one that was not
        self.stuck_at = 0  # the first update with which these were as many as a run bears

    def settle(self) -> None:
        """Wait for the update that is under way and write its metrics."""
        if self._pending is None:
            return
        update, on_device, finished, counted, waited, (began, ended) = self._pending
        self._pending = None
        compiling = max(ended - max(began, self._before), 0.0)
        seconds, self._before = finished.result() - self._before - compiling, finished.result()
        if self._begun:
            self._seconds, self._waited = self._seconds + seconds, self._waited + waited
        else:
            self._claim()
        self._begun = True
        clock = {
            "step_seconds": seconds,
            "tokens_per_second": counted["tokens"] / seconds,
            "input_wait": waited / seconds,
        }
        self.last = metrics.of_step(jax.device_get(on_device), counted | clock, tuple(self._settings.data.sources))
        self.in_a_row = self.in_a_row + 1 if self.last["skipped"] else 0
        if self.last["skipped"]:
            self._writer.say(f"update {update}: loss or gradient is not finite; parameters left as they were")
        if self.in_a_row and self.in_a_row == self._settings.run.max_skipped:
            self.stuck_at = self.stuck_at or update
        self._note(update, self.last)
        self._writer.show(update, self.last)
        if update % self._settings.run.log_every == 0 or update == self._last_update:
            self._writer.write(update, self.last)

    def rest(self) -> None:
        """Begin to count the next update's time now: something else has been done."""
        self._before = self._clock()

    @contextlib.contextmanager
    def starting(self, batch: types.Batch) -> Iterator[None]:
        """Around the start of an update. The first of its shapes compiles, which is told and not counted."""
        shapes = tuple(array.shape for array in jax.tree.leaves(batch))
        self._compiling = NOT_AT_ALL
        if shapes in self._shapes:
            yield
            return
        self._shapes.add(shapes)
        began = self._clock()
        with self._writer.compiling():
            yield
        self._compiling = began, self._clock()

    def follow(
        self, update: int, on_device: step_lib.Metrics, finished: feed.Moment, counted: dict[str, float], waited: float
    ) -> None:
        """Note an update that was just started, for whose batch the devices `waited` so many seconds."""
        self._pending = update, on_device, finished, counted, waited, self._compiling

    def conclude(self) -> None:
        """Settle, and warn if reading has kept the devices waiting."""
        self.settle()
        if self._waited > metrics.SLOW_INPUT * self._seconds:
            data = self._settings.data
            self._writer.say(
                f"the devices waited for their input {100 * self._waited / self._seconds:.0f} % of the time: raise"
                f" config.data.read_threads (now {data.read_threads}) or config.data.read_workers (now"
                f" {data.read_workers})"
            )
