"""The arrays of LLaVA-NeXT and their names: those of LLaVA-1.5 and `image_newline`, which trains with the projector
(LLaVA's llava_arch.py; transformers' modeling_llava_next.py of 4.39, 4.52 and 5.x)."""

from __future__ import annotations

import dataclasses

from vlguard_jax.families import parameters
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import names
from vlguard_jax.families.llava_next import config as next_config

NEWLINE = "image_newline"
# The projector's prefix in transformers is not the newline's, so it is part of the name here.
_HF_PROJECTOR, _HF_PREFIXES = "multi_modal_projector.", ("", "model.")
_PEFT_HF_PREFIXES = ("base_model.model.model.",)


def all_parameters(
    config: next_config.LlavaNextConfig, lora: configs.LoraConfig | None
) -> tuple[parameters.Parameter, ...]:
    """Every array of a model of these sizes. LLaVA draws a fresh newline with standard deviation 1/sqrt(D)."""
    width = config.text.width
    newline = parameters.Parameter(NEWLINE, NEWLINE, (width,), "projector", fresh=width**-0.5)
    return (*names.all_parameters(config, lora), newline)


def layouts(config: next_config.LlavaNextConfig) -> dict[str, parameters.Layout]:
    """The layouts of files with such a model or a part of it."""
    made = names.layouts(config)
    for layout, prefixes in (("llava-hf", _HF_PREFIXES), ("peft-hf", _PEFT_HF_PREFIXES)):
        hf = made[layout]
        named = {id_: _HF_PROJECTOR + name for id_, name in hf.names.items()}
        made[layout] = dataclasses.replace(hf, prefixes={**hf.prefixes, "projector": prefixes}, names=named)
    return made
