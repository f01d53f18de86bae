"""Checks what you downloaded, says what is missing and how to get it, and lays it out for training and evaluation.

  python -m vlguard_jax.prepare vlguard --metadata DIR --out DIR [--images DIR] [--stand_in_images]

vlguard: --metadata holds VLGuard's train.json and test.json, --images its pictures: train.zip and test.zip, or unzipped train/ and test/.
  Writes the files that training and evaluation read and, in OUT/tfds, the same as ArrayRecord files for TensorFlow Datasets (TFDS).
  --stand_in_images draws one picture per record instead, to rehearse a run before access to the gated ones is granted.
"""

from __future__ import annotations

import pathlib

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors

_METADATA = flags.DEFINE_string("metadata", "", "Folder that holds VLGuard's train.json and test.json.")
_OUT = flags.DEFINE_string("out", "", "Folder to write; it appears when everything is there.")
_IMAGES = flags.DEFINE_string("images", "", "Folder that holds the pictures, zipped or not; --metadata if not given.")
_STAND_IN = flags.DEFINE_boolean("stand_in_images", False, "Draw a picture for every record instead of using the real ones.")


def main(arguments: list[str]) -> int:
    """Run the sub-command that the first argument names."""
    commands = {"vlguard": _vlguard}
    if not arguments:
        print(__doc__)
        return errors.EXIT_OK
    name, *rest = arguments
    if name not in commands:
        raise errors.UserError(f"prepare cannot do {name!r}{errors.nearest(name, commands)}")
    if rest:
        raise errors.UserError(f"prepare {name} takes no further argument, but got {rest[0]!r}")
    commands[name]()
    return errors.EXIT_OK


def _vlguard() -> None:
    from rich import console
    from rich import table

    from vlguard_jax.data import vlguard_folder

    for flag in (_METADATA, _OUT):
        if not flag.value:
            raise errors.UserError(f"prepare vlguard needs --{flag.name}")
    out = pathlib.Path(_OUT.value)
    images = pathlib.Path(_IMAGES.value) if _IMAGES.value else None
    prepared = vlguard_folder.prepare(pathlib.Path(_METADATA.value), out, images, _STAND_IN.value)
    kind = "stand-in pictures" if _STAND_IN.value else "pictures"
    shown = table.Table("split", "unsafe", "safe", "records", "question-answer pairs", f"distinct {kind}", title=f"VLGuard in {out}")
    for split in prepared.splits:
        numbers = (split.unsafe, split.safe, split.unsafe + split.safe, split.pairs, split.pictures)
        shown.add_row(split.name, *(f"{n:,}" for n in numbers))
    console.Console().print(shown)
    print(f"As ArrayRecord in {prepared.records}, for the source format tfds.")
    if prepared.was_ready:
        print("Everything was there already: nothing was written.")
    if _STAND_IN.value:
        print("Results made with these pictures are marked stand_in and say nothing about real pictures.")
        print(f"For those: {vlguard_folder.ACCESS}.")


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
