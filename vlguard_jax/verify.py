r"""Proves that a checkpoint here computes what the model that it was made from computes in transformers.

  python -m vlguard_jax.verify --src HF_FOLDER --make_golden GOLDEN     # where PyTorch is installed
  python -m vlguard_jax.verify --src CHECKPOINT --golden GOLDEN         # anywhere

The first asks a Hugging Face model (llava-hf, LLaVA-NeXT or Llama layout) a few harmless questions, most about drawn
pictures, and keeps prompts, ids, pixels, features, logits and greedy answers. The second compares a checkpoint of any
layout with them, stage by stage, in fp32 with matrix products at `highest` precision, or as --dtype says. It exits with
0 if all that could be compared holds, and with 3 if something differs.
"""

from __future__ import annotations

import pathlib

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors

_SRC = flags.DEFINE_string("src", "", "Checkpoint: a folder in any layout, or a hub id owner/name[@revision].")
_GOLDEN = flags.DEFINE_string("golden", "", "Golden folder to compare it with.")
_MAKE = flags.DEFINE_string("make_golden", "", "Golden folder to make of the Hugging Face model in --src.")
_BASE = flags.DEFINE_string("base", "", "Base model of a PEFT or projector-only folder.")
_TOWER = flags.DEFINE_string("vision_tower", "", "CLIP folder or hub id, in place of the one that config.json names.")
_PROJECTOR = flags.DEFINE_string("projector", "", "mm_projector.bin, with a Llama folder in --src.")
_FAMILY = flags.DEFINE_string("family", "", "What --vision_tower and --projector make of it: llava or llava_next.")
_DTYPE = flags.DEFINE_enum("dtype", "fp32", ("fp32", "bf16", "fp16"), "Number format to compute in.")


def main(positional: list[str]) -> int:
    """Make a golden folder, or compare with one."""
    if positional:
        raise errors.UserError(f"{positional[0]!r} is not understood: verify takes flags only, see --help")
    if not _SRC.value or bool(_GOLDEN.value) == bool(_MAKE.value):
        raise errors.UserError("give --src, and --golden to compare or --make_golden to make what others compare with")
    from vlguard_jax import terminal  # late: --help needs no jax
    from vlguard_jax.verifying import golden

    if _MAKE.value:
        from vlguard_jax.verifying import hugging_face

        made = hugging_face.make(_SRC.value, pathlib.Path(_MAKE.value))
        terminal.say(f"wrote {_MAKE.value}: {len(made.answers)} prompts asked of {made.record.model}")
        return errors.EXIT_OK
    from vlguard_jax import config
    from vlguard_jax.checkpoints import gate
    from vlguard_jax.checkpoints import load
    from vlguard_jax.parallel import programs
    from vlguard_jax.verifying import compare
    from vlguard_jax.verifying import show

    found = golden.read(pathlib.Path(_GOLDEN.value))
    programs.keep()
    model = load.load(
        _SRC.value, base=_BASE.value, vision_tower=_TOWER.value, projector=_PROJECTOR.value, as_family=_FAMILY.value
    )
    if line := gate.told(model):
        terminal.say(line)
    stages = compare.compare(model, found, _DTYPE.value, config.ModelSettings.template_date)
    show.show(stages)
    if any(one.holds is False for one in stages):
        terminal.say(f"{_SRC.value} DIFFERS from {found.record.source}")
        return errors.EXIT_DIFFERS
    terminal.say(f"{_SRC.value} computes what {found.record.source} computes in transformers, in {_DTYPE.value}")
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
