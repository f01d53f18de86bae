"""Convert a checkpoint from one layout to another, or describe it.

  python -m vlguard_jax.convert --src FOLDER_OR_HUB_ID --dst FOLDER --to hf
  python -m vlguard_jax.convert --inspect FOLDER_OR_HUB_ID

LoRA adapters are merged into the model unless they are written as such: `--to peft` as LLaVA does, on a base in LLaVA's
or Llama's layout, `--to peft-hf` for the `peft` library, on a llava-hf folder or a language model in Llama's layout.
Of adapters that are read, those that cannot be written so are merged, and a line says which.
"""

from __future__ import annotations

import os

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors
from vlguard_jax import folders

LAYOUTS = ("orbax", "llava", "hf", "peft", "peft-hf")
DTYPES = ("keep", "fp32", "fp16", "bf16")

_SRC = flags.DEFINE_string("src", "", "Checkpoint to read: a folder in any layout, or a hub id owner/name[@revision].")
_DST = flags.DEFINE_string("dst", "", "Folder to write.")
_TO = flags.DEFINE_enum("to", None, LAYOUTS, "Layout to write.")
_INSPECT = flags.DEFINE_string("inspect", "", "Print what this checkpoint is and stop.")
_BASE = flags.DEFINE_string("base", "", "Base model of a PEFT or projector-only folder.")
_TOWER = flags.DEFINE_string("vision_tower", "", "CLIP folder or hub id, in place of the one that config.json names.")
_PROJECTOR = flags.DEFINE_string("projector", "", "mm_projector.bin, to make a LLaVA model out of a Llama folder.")
_FAMILY = flags.DEFINE_string(
    "family", "", "What --vision_tower and --projector make of it: llava (default) or llava_next."
)
_DTYPE = flags.DEFINE_enum("dtype", "keep", DTYPES, "Number format of the written arrays.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace the checkpoint --dst if it is there; never a folder that holds anything else."
)


def main(argv: list[str]) -> int | None:
    """Convert or inspect one checkpoint."""
    if argv:
        raise errors.UserError(f"unexpected argument {argv[0]!r}: name checkpoints with --src, --dst or --inspect")
    if _INSPECT.value:
        from vlguard_jax.checkpoints import describe

        lines = describe.describe(
            _INSPECT.value,
            base=_BASE.value,
            vision_tower=_TOWER.value,
            projector=_PROJECTOR.value,
            as_family=_FAMILY.value,
        )
        describe.show(lines)
        return None
    if not (_SRC.value and _DST.value and _TO.value):
        raise errors.UserError("give --src, --dst and --to, or --inspect")
    _convert(_SRC.value, _DST.value, _TO.value)
    return None


def _convert(src: str, dst: str, to: str) -> None:
    from vlguard_jax import terminal
    from vlguard_jax.checkpoints import load
    from vlguard_jax.checkpoints import lora
    from vlguard_jax.checkpoints import place
    from vlguard_jax.checkpoints import save
    from vlguard_jax.checkpoints import save_adapters
    from vlguard_jax.checkpoints import tensors

    dst = os.path.expanduser(dst)  # as --src; the shell does not expand --dst=~/folder
    if dst.startswith("~"):
        raise errors.UserError(f"--dst={dst}: there is no such user; for a folder of that name give ./{dst}")
    place.check_free(dst, _OVERWRITE.value, [src, _BASE.value, _TOWER.value, _PROJECTOR.value])  # before the long part
    before = folders.identity(dst)
    model = load.load(
        src, base=_BASE.value, vision_tower=_TOWER.value, projector=_PROJECTOR.value, as_family=_FAMILY.value
    )
    save.check(model, to)
    if "note" in model.extras:
        terminal.say(model.extras["note"])
    if to not in save_adapters.LAYOUTS:
        model = lora.merge(model)
    if folders.identity(dst) != before:
        raise errors.UserError(f"{dst}: another process has written it meanwhile; what it wrote stays")
    writers = {"orbax": save.save_orbax, "llava": save.save_llava, "hf": save.save_hf}
    writers |= {"peft": save_adapters.save_peft, "peft-hf": save_adapters.save_peft_hf}
    writers[to](model, dst, tensors.FLOATS.get(_DTYPE.value), overwrite=_OVERWRITE.value)
    terminal.say(f"{dst}: written as {to}")


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
