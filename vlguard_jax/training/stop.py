"""SIGTERM during a training: save and exit, in all processes at the same moment."""

from __future__ import annotations

from types import TracebackType

import jax
from jax.experimental import multihost_utils

from vlguard_jax import stopping
from vlguard_jax.parallel import joining


class Signal:
    """Turns SIGTERM (preemption, a scheduler's time limit) into "save and exit" the next time that `seen` is asked;
    with several processes, the next time that none of them has asked. Before `hold` there is nothing to save, and the
    signal ends the command at once."""

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._noted = stopping.Noted()
        self._told = False
        self._asked = 0

    def hold(self) -> None:
        """Call after an update that would be lost."""
        if self._alone:
            self._noted.hold()
        else:  # JAX's own handler tells the other processes
            joining.hand_over_sigterm()

    def seen(self) -> bool:
        """Whether to stop now; every process must ask after every update, and after every answer of a probe."""
        self._asked += 1
        if not self._alone:
            self._told = self._told or multihost_utils.reached_preemption_sync_point(self._asked)
        return self.told

    @property
    def told(self) -> bool:
        """Whether the signal has come; with several processes, whether `seen` said so."""
        return self._noted.seen or self._told

    def __enter__(self) -> Signal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._noted.__exit__(kind, value, trace)
        if not self._alone:
            joining.take_sigterm()
