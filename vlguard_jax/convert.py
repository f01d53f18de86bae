"""Convert a checkpoint from one layout to another, or describe it.

  python -m vlguard_jax.convert --src FOLDER_OR_HUB_ID --dst FOLDER --to hf
  python -m vlguard_jax.convert --inspect FOLDER_OR_HUB_ID [--hash]

LoRA adapters are merged into the model unless they are written as such: `--to peft` as LLaVA does, on a base in LLaVA's
or Llama's layout, `--to peft-hf` for the `peft` library, on a llava-hf folder or a language model in Llama's layout.
Those that cannot be written so are merged, and a line says which. --src runs/NAME takes them out of a LoRA training.

Each folder gets a model card, README.md. With the working directories of the training and of evaluations (or a folder
above them) it says how the model was trained and what was measured of it:

  python -m vlguard_jax.convert --src runs/posthoc/model --dst llava-posthoc --to hf --card_from runs --license llama2

--push_to_hub=owner/name uploads the folder then; nothing is uploaded without it.

Tensor by tensor, whatever the size. After a kill the same command goes on. Each folder gets a manifest.json, with which
every later command compares it (docs/checkpoints.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors

if TYPE_CHECKING:
    from vlguard_jax.checkpoints import checkpoint

LAYOUTS = ("orbax", "llava", "hf", "peft", "peft-hf")
DTYPES = ("keep", "fp32", "fp16", "bf16")

_SRC = flags.DEFINE_string("src", "", "Checkpoint to read: a folder in any layout, or a hub id owner/name[@revision].")
_DST = flags.DEFINE_string("dst", "", "Folder to write.")
_TO = flags.DEFINE_enum("to", None, LAYOUTS, "Layout to write.")
_INSPECT = flags.DEFINE_string("inspect", "", "Print what this checkpoint is and stop.")
_HASH = flags.DEFINE_bool("hash", False, "With --inspect: also the sha256 of every file and of the weights.")
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
_CARD_FROM = flags.DEFINE_list("card_from", [], "Working directories whose training and results the model card tells.")
_LICENSE = flags.DEFINE_string("license", "", "Licence for the model card, an identifier of the hub: llama2.")
_PUSH = flags.DEFINE_string("push_to_hub", "", "Upload what was written as this model repository, owner/name.")
_PRIVATE = flags.DEFINE_bool("private", False, "A repository that --push_to_hub makes is private.")


def main(argv: list[str]) -> int | None:
    """Convert or inspect one checkpoint."""
    if argv:
        raise errors.UserError(f"unexpected argument {argv[0]!r}: name checkpoints with --src, --dst or --inspect")
    parts = dict(base=_BASE.value, vision_tower=_TOWER.value, projector=_PROJECTOR.value, as_family=_FAMILY.value)
    if _INSPECT.value and (_SRC.value or _DST.value or _TO.value):
        raise errors.UserError("--inspect only describes a checkpoint: leave it out, or --src, --dst and --to")
    if _INSPECT.value:
        from vlguard_jax.checkpoints import describe

        lines = describe.describe(_INSPECT.value, **parts)
        describe.show(lines | describe.hashes(_INSPECT.value, **parts) if _HASH.value else lines)
        return None
    if not (_SRC.value and _DST.value and _TO.value):
        raise errors.UserError("give --src, --dst and --to, or --inspect")
    from vlguard_jax import terminal
    from vlguard_jax.checkpoints import conversion
    from vlguard_jax.checkpoints import hub
    from vlguard_jax.checkpoints import tensors
    from vlguard_jax.training import adapters

    if _PUSH.value:
        hub.check_push(_PUSH.value)
    named = (_SRC.value, _DST.value, _TO.value, tensors.FLOATS.get(_DTYPE.value))
    early, overwrite, of_run = bool(_CARD_FROM.value), _OVERWRITE.value, adapters.of_run
    done = conversion.convert(*named, parts=parts, overwrite=overwrite, further=_card, early=early, of_run=of_run)
    if _PUSH.value:
        terminal.say(f"uploaded to {hub.push(done, _PUSH.value, private=_PRIVATE.value)}")
    return None


def _card(model: checkpoint.Checkpoint, dtype: str) -> Mapping[str, str]:
    from vlguard_jax.reporting import model_card

    name, to = _PUSH.value or PurePath(_DST.value).name, str(_TO.value)
    made = model_card.gather(name, model, to, dtype, _CARD_FROM.value, _LICENSE.value)
    return {model_card.NAME: model_card.write(made)}


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
