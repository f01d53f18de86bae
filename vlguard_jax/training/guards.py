"""What watches over the updates of a run: spikes.py, changes.py and stuck.py."""

from __future__ import annotations

from collections.abc import Callable
import functools
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Float
import numpy as np

from vlguard_jax import config
from vlguard_jax.training import changes
from vlguard_jax.training import log as log_lib
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import resume
from vlguard_jax.training import setup
from vlguard_jax.training import spikes
from vlguard_jax.training import step as step_lib
from vlguard_jax.training import stuck


class Guards:
    """Begins before the first update of this process, with the recent losses that the checkpoint records."""

    def __init__(
        self,
        settings: config.TrainConfig,
        data: setup.Data,
        program: program_lib.Program,
        state: step_lib.TrainState,
        learning_rates: Float[np.ndarray, " updates"],
        workdir: Path,
        say: Callable[[str], None],
        meta: resume.Record,
    ):
        self._settings, self._data, self._workdir = settings, data, workdir
        held, main = functools.partial(spikes.held, data), jax.process_index() == 0
        recent = meta.get("recent_losses", [])
        self._spikes = spikes.Spikes(workdir, held, say, int(state.step), recent, active=main)
        self._changes = changes.Changes(settings, data, program, state, learning_rates, say)
        self.note = self._spikes.note  # of the log

    def record(self) -> dict[str, Any]:
        """What a checkpoint has to record."""
        return {"recent_losses": self._spikes.recent}

    def after(self, index: int, state: step_lib.TrainState, log: log_lib.Log) -> None:
        """After update `index` was begun. Raises UserError: see `Changes.check`."""
        if self._changes.due(index):
            log.settle()
            self._changes.check(index, state, log.last)

    def save(self, update: int, state: step_lib.TrainState, log: log_lib.Log, saves: resume.Saves) -> None:
        """Save the state after an update, unless that was skipped: then it is the one before, and may be the last
        good one."""
        log.settle()
        if not log.in_a_row:
            saves.keep(update, state)

    def conclude(
        self, state: step_lib.TrainState, log: log_lib.Log, saves: resume.Saves, *, stopped: bool
    ) -> step_lib.TrainState:
        """Save and return the state at the end: that before the skipped updates at the end of a run that was `stopped`
        or has had too many of them, so that it meets them again.

        Raises:
          UserError: too many updates in a row were skipped, or see `Changes.conclude`.
        """
        if stopped or log.stuck_at:
            state = stuck.rewound(state, log.in_a_row)
        else:
            self._changes.conclude(state)
        saves.keep(int(state.step), state)
        saves.wait()
        if log.stuck_at:
            raise stuck.problem(self._settings, self._data, self._workdir, log.stuck_at, saves.saved)
        return state
