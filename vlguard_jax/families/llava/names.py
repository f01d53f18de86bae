"""The arrays of LLaVA-1.5 and their names: LLaVA's llava_arch.py and clip_encoder.py; transformers' modeling_llava.py
of 4.36, 4.52 and 5.x; peft 0.10."""

from __future__ import annotations

from collections.abc import Mapping

from vlguard_jax.families import parameters
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config

_ORIGINAL_PROJECTOR = {"mlp2x_gelu": ("mm_projector.0", "mm_projector.2"), "linear": ("mm_projector",)}
_HF_PROJECTOR = {"mlp2x_gelu": ("linear_1", "linear_2")}

ORIGINAL_PREFIXES = {
    "text": ("model.",),
    "head": ("lm_head.",),
    "vision": ("model.vision_tower.vision_tower.vision_model.",),
    "projector": ("model.",),
}
HF_PREFIXES = {
    "text": ("language_model.model.", "model.language_model.", "model.language_model.model."),
    "head": ("language_model.lm_head.", "lm_head.", "model.language_model.lm_head."),
    "vision": (
        "vision_tower.vision_model.",
        "model.vision_tower.vision_model.",
        "vision_tower.",
        "model.vision_tower.",
    ),
    "projector": ("multi_modal_projector.", "model.multi_modal_projector."),
}
# As peft finds them in today's LlavaForConditionalGeneration.
PEFT_HF_PREFIXES = {
    "adapter": ("base_model.model.model.language_model.",),
    "projector": ("base_model.model.model.multi_modal_projector.",),
}
# mm_projector.bin and non_lora_trainables.bin: the reference reads what follows `mm_projector.`.
PROJECTOR_PREFIXES = {"projector": ("model.", "", "base_model.model.model.", "base_model.model.")}
NON_LORA_PREFIXES = {"projector": ("base_model.model.model.", "base_model.model.", "model.")}


def all_parameters(
    config: llava_config.LlavaConfig, lora: configs.LoraConfig | None
) -> tuple[parameters.Parameter, ...]:
    """Every array of a model of these sizes."""
    return (
        *parameters.decoder(config.text, lora),
        *parameters.clip_tower(config.vision),
        *parameters.projector(config.projector, config.vision.width, config.text.width),
    )


def projector_names(kind: str, known: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """id -> name after the prefix; empty where the layout has no place for this kind of projector."""
    layers = zip(("projector.fc1", "projector.fc2"), known.get(kind, ()), strict=False)
    return {id_: name for path, stored in layers for id_, name in parameters.dense_names(path, stored).items()}


def layouts(config: llava_config.LlavaConfig) -> dict[str, parameters.Layout]:
    """The layouts of files with such a model or a part of it."""
    original = projector_names(config.projector, _ORIGINAL_PROJECTOR)
    hf = projector_names(config.projector, _HF_PROJECTOR)
    made = (
        parameters.Layout("llava", ORIGINAL_PREFIXES, original, parameters.BUFFERS),
        parameters.Layout("llava-hf", HF_PREFIXES, hf, parameters.BUFFERS),
        parameters.Layout("peft-hf", PEFT_HF_PREFIXES, hf),
        parameters.Layout("projector", PROJECTOR_PREFIXES, original),
        parameters.Layout("non_lora", NON_LORA_PREFIXES, original),
        *(parameters.LLAMA, parameters.CLIP, parameters.PEFT),
    )
    return {layout.name: layout for layout in made}
