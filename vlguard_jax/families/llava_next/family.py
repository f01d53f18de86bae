"""LLaVA-NeXT (v1.6): LLaVA-1.5's networks, with pictures split into tiles."""

from __future__ import annotations

import dataclasses
from typing import Any

from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import family as llava
from vlguard_jax.families.llava_next import config as next_config
from vlguard_jax.families.llava_next import config_json
from vlguard_jax.families.llava_next import names
from vlguard_jax.families.llava_next import pictures
from vlguard_jax.families.llava_next import presets


def _describe(config: next_config.LlavaNextConfig) -> dict[str, str]:
    points = ", ".join(f"{wide} x {high}" for high, wide in config.pinpoints)
    return llava.FAMILY.describe(config) | {"tiles": f"of {config.vision.image_size} px, pictures fitted to {points}"}


def _network(config: next_config.LlavaNextConfig, lora: configs.LoraConfig | None, rngs: Any) -> Any:
    from vlguard_jax.families.llava_next import network

    return network.LlavaNext(config, lora, rngs)


FAMILY = dataclasses.replace(
    llava.FAMILY,
    name="llava_next",
    config=next_config.LlavaNextConfig,
    presets=presets.PRESETS,
    asking=presets.ASKING,
    model_types=config_json.MODEL_TYPES,
    kind=config_json.kind,
    read_hf=config_json.read_hf,
    check_original=config_json.check_original,
    read_original=config_json.read_original,
    write_hf=config_json.write_hf,
    write_original=config_json.write_original,
    original_json=True,
    processors=config_json.processors,
    from_record=next_config.from_record,
    parameters=names.all_parameters,
    layouts=names.layouts,
    pictures=pictures.PICTURES,
    max_len=4096,
    describe=_describe,
    network=_network,
)
