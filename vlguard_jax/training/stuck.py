"""Ends a run whose updates are skipped again and again, with the last good state kept."""

from __future__ import annotations

from pathlib import Path

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.training import setup
from vlguard_jax.training import spikes
from vlguard_jax.training import step as step_lib


def rewound(state: step_lib.TrainState, skipped: int) -> step_lib.TrainState:
    """The state before the last `skipped` updates, all skipped: these left parameters and moments as they were."""
    return state._replace(step=state.step - skipped) if skipped else state


def problem(settings: config.TrainConfig, data: setup.Data, workdir: Path, update: int, saved: int) -> errors.UserError:
    """What ends the run once update `update` was the last of `config.run.max_skipped` skipped ones in a row. saved: the
    step of the last good state; 0: there was none but the one that the run began with."""
    good = f"the last good state is {workdir}/checkpoints/{saved}, and nothing was changed or saved after it"
    if not saved:
        good = "no update before it was good, and nothing was changed or saved"
    most, held = settings.run.max_skipped, spikes.held(data, update)
    return errors.UserError(
        f"update {update}: loss or gradient was not finite for {most:,} updates in a row; this one learned from"
        f" {spikes.told(held)} ({spikes.FILE} lists those of all); {good}; look at these records, try"
        " config.precision.compute=fp32 or a smaller config.optimizer.learning_rate in another --workdir, or raise"
        f" config.run.max_skipped (now {most}, 0: no limit) to go on here"
    )
