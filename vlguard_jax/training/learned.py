"""Tells, before a run starts and when it ends, if it changes the model at all."""

from __future__ import annotations

import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.training import optimizer


def _moves(settings: config.OptimizerSettings, total: int, updates: int) -> bool:
    """Whether one of the first `updates` updates has a learning rate above 0."""
    return bool(np.any(np.asarray(optimizer.cosine_factor(total, settings.warmup_ratio)(np.arange(updates))) > 0))


def before(settings: config.OptimizerSettings, total: int, last: int) -> list[str]:
    """Warnings about a run that ends after update `last` of a schedule of `total`; empty where it can learn."""
    if _moves(settings, total, last):
        return []
    cause = f"config.optimizer.max_steps={settings.max_steps}" if last < total else "the data is one step"
    way = "let it go on" if last < total else "raise config.optimizer.epochs or lower config.data.batch_size"
    return [
        "THIS RUN LEARNS NOTHING: the schedule gives its first update learning rate 0, and there is no other"
        f" ({cause}); {way}"
    ]


def after(settings: config.OptimizerSettings, total: int, done: int, applied: int, in_a_row: int) -> list[str]:
    """Warnings about a finished run of `done` updates, of which `applied` were not skipped and the last `in_a_row`
    were.

    Raises:
      UserError: all were skipped.
    """
    if done and not applied:
        raise errors.UserError(
            f"all {done:,} updates were skipped because loss or gradient was not finite: nothing was learned, and no"
            " model is written; see loss and grad_norm in metrics.jsonl, then try config.precision.compute=fp32, and"
            " look at the weights in config.model.path"
        )
    said = []
    if skipped := done - applied:
        until = f", the last {in_a_row:,} in a row: the model is that of update {done - in_a_row:,}" if in_a_row else ""
        said.append(f"{skipped:,} of {done:,} updates were skipped because loss or gradient was not finite{until}")
    if not _moves(settings, total, applied):
        said.append(
            "NOTHING WAS LEARNED: the only update that was not skipped has learning rate 0; the model is the one it"
            " started from"
        )
    return said
