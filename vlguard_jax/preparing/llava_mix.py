"""`prepare llava_mix` and `prepare clean`: the visual-instruction mixture checked, and what a run needs of it
listed."""

from __future__ import annotations

import pathlib

from rich import table

from vlguard_jax import terminal
from vlguard_jax.data import llava_mix


def draw(mix: str, out: str, images: str, count: int, seed: int, any_size: bool) -> None:
    """Draw the helpful sample of a post-hoc run into `out` and say what is to be fetched; see `llava_mix.draw`.

    Raises:
      UserError: as there.
    """
    drawn = llava_mix.draw(pathlib.Path(mix), pathlib.Path(out), count, seed, images, any_size)
    shown = table.Table("pictures in", "needed", title=f"{drawn.conversations:,} conversations of {mix}, seed {seed}")
    for folder, needed in drawn.by_folder.items():
        shown.add_row(folder, f"{needed:,}")
    shown.add_row("all", f"{drawn.pictures:,}", end_section=True)
    terminal.console().print(shown)
    meanings = (
        "the conversations, a source of their own",
        "their ids, for include_ids of the whole file",
        "the pictures to fetch",
    )
    for path, meaning in zip(drawn.files, (*meanings, "those that are not there yet"), strict=False):
        terminal.say(f"{path}: {meaning}")
    if drawn.absent is not None:
        terminal.say(
            f"{drawn.pictures - drawn.absent:,} of {drawn.pictures:,} pictures are in {images}, {drawn.absent:,}"
            " are missing."
        )


def clean(mix: str, cleaned: str, out: str, any_size: bool) -> None:
    """Write the ids that the clean form leaves out; see `llava_mix.removed`.

    Raises:
      UserError: as there.
    """
    count = llava_mix.removed(pathlib.Path(mix), pathlib.Path(cleaned), pathlib.Path(out), any_size)
    terminal.say(
        f"{out}: the ids of {count:,} conversations of {mix} that {cleaned} leaves out, for exclude_ids of the"
        " whole file"
    )
