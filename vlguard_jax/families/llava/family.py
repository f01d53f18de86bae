"""LLaVA-1.5: a CLIP tower at one size, a projector, Vicuna."""

from __future__ import annotations

from typing import Any

from vlguard_jax.families import family
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava import config_json
from vlguard_jax.families.llava import names
from vlguard_jax.families.llava import pictures
from vlguard_jax.families.llava import presets


def _describe(config: llava_config.LlavaConfig) -> dict[str, str]:
    v = config.vision
    picture = f"{v.image_size} px, patch {v.patch_size} ({v.num_patches} tokens), feature layer {v.feature_layer}"
    return {"vision": f"{v.num_layers} layers, width {v.width}, {picture}", "projector": config.projector}


def _network(config: llava_config.LlavaConfig, lora: configs.LoraConfig | None, rngs: Any) -> Any:
    from vlguard_jax.families.llava import network

    return network.Llava(config, lora, rngs)


def _templates(config: llava_config.LlavaConfig) -> tuple[str, ...]:
    if config.text.architecture == "mistral":
        return ("mistral_instruct",)
    return "vicuna_v1", "llava_v1", "llava_llama_3"


FAMILY = family.Family(
    name="llava",
    config=llava_config.LlavaConfig,
    presets=presets.PRESETS,
    asking=presets.ASKING,
    model_types=config_json.MODEL_TYPES,
    kind=config_json.kind,
    read_hf=config_json.read_hf,
    check_original=config_json.check_original,
    read_original=config_json.read_original,
    write_hf=config_json.write_hf,
    write_original=config_json.write_original,
    original_json=False,
    processors=config_json.processors,
    from_record=llava_config.from_record,
    parameters=names.all_parameters,
    layouts=names.layouts,
    pictures=pictures.PICTURES,
    positions=family.counted,
    templates=_templates,
    max_len=2048,
    describe=_describe,
    network=_network,
)
