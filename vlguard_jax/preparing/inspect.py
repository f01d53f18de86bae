"""`prepare inspect`: one batch as training would get it, for people to read."""

from __future__ import annotations

import pathlib

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import terminal
from vlguard_jax.data import loader
from vlguard_jax.families.chat import choice
from vlguard_jax.preparing import batch_page
from vlguard_jax.preparing import batch_rows
from vlguard_jax.preparing import batch_text
from vlguard_jax.preparing import opened
from vlguard_jax.reporting import page
from vlguard_jax.training import conversations


def run(
    settings: config.TrainConfig,
    *,
    step: int = 0,
    rows: int = 4,
    shards: int = 1,
    out: str = "",
    harmless: bool = False,
) -> batch_rows.Step:
    """Print step `step` of the run, from 0, as loaded by one host with all `shards` row shards.

    Returns its contents.

    Args:
      rows: number of rows to show in full, 0 for all.
      out: also write a page with the pictures to this file.
      harmless: the sources are known to contain nothing harmful: fold and blur nothing on the page.

    Raises:
      UserError: as `opened.open_mixture` and `conversations.plan`, no such step, or the page cannot be written.
    """
    console = terminal.console()
    found = opened.open_mixture(settings, console)
    plan = conversations.plan(settings, found.mixture, shards)
    steps = conversations.updates(settings, plan)
    if not 0 <= step < steps:
        raise errors.UserError(f"--step={step}: the run has {steps:,} steps, 0 to {steps - 1:,}")
    batches = loader.Loader(plan, found.mixture, start_step=step, stop_step=step + 1)
    _, batch = next(iter(batches))
    shown = batch_rows.read(batch, step, steps, plan, found.mixture)
    words = found.mixture.tokenization.tokenizer
    if out:  # first, so that it exists even if a pager closes the text early
        page.save(
            pathlib.Path(out),
            batch_page.render(shown, rows, words, title=f"Step {step} of {steps:,}", fold=not harmless),
        )
    console.print(choice.told(found.mixture.tokenization.template))
    batch_text.show(shown, rows, words, console)
    if out:
        console.print()
        console.print(f"wrote {out}")
    return shown
