"""`prepare vlguard`: VLGuard's files checked and laid out."""

from __future__ import annotations

import pathlib

from rich import table

from vlguard_jax import terminal
from vlguard_jax.data import vlguard_folder


def run(metadata: str, out: str, images: str, stand_in: bool) -> None:
    """Prepare the folder `out` and say what is in it; see `vlguard_folder.prepare`.

    Raises:
      UserError: as there.
    """
    prepared = vlguard_folder.prepare(
        pathlib.Path(metadata), pathlib.Path(out), pathlib.Path(images) if images else None, stand_in
    )
    kind = "stand-in pictures" if stand_in else "pictures"
    shown = table.Table(
        "split", "unsafe", "safe", "records", "question-answer pairs", f"distinct {kind}", title=f"VLGuard in {out}"
    )
    for split in prepared.splits:
        numbers = (split.unsafe, split.safe, split.unsafe + split.safe, split.pairs, split.pictures)
        shown.add_row(split.name, *(f"{n:,}" for n in numbers))
    terminal.console().print(shown)
    terminal.say(f"As ArrayRecord in {prepared.records}, for the source format tfds.")
    if prepared.was_ready:
        terminal.say("Everything was there already: nothing was written.")
    if stand_in:
        terminal.say("Results made with these pictures are marked stand_in and say nothing about real pictures.")
        terminal.say(f"For those: {vlguard_folder.ACCESS}.")
