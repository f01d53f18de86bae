"""Llama and models computed alike, such as Vicuna and Mistral: a language model by itself."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import family
from vlguard_jax.families import parameters
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import config as llama_config

_LAYOUTS = (parameters.LLAMA, parameters.GGUF, parameters.PEFT, parameters.PEFT_HF)


def _read_hf(config: Mapping[str, Any], folder: pathlib.Path) -> tuple[llama_config.LlamaConfig, int]:
    text = config_json.text_config(config, str(folder / "config.json"))
    return llama_config.LlamaConfig(text), text.vocab_size


def _write_hf(config: llama_config.LlamaConfig, extras: extras_lib.Extras, dtype: str, tokens: None) -> dict[str, Any]:
    own = {family.PROVENANCE: extras["provenance"]} if extras.get("provenance") else {}
    return config_json.language_json(config.text, extras, dtype) | own


def _parameters(config: llama_config.LlamaConfig, lora: configs.LoraConfig | None) -> tuple[parameters.Parameter, ...]:
    return parameters.decoder(config.text, lora)


def _network(config: llama_config.LlamaConfig, lora: configs.LoraConfig | None, rngs: Any) -> Any:
    from vlguard_jax.families.llama import network

    return network.Llama(config, lora, rngs)


def _templates(config: llama_config.LlamaConfig) -> tuple[str, ...]:
    return ("mistral_instruct",) if config.text.architecture == "mistral" else ("vicuna_v1", "llava_v1")


FAMILY = family.Family(
    name="llama",
    config=llama_config.LlamaConfig,
    presets={},
    asking={"language": family.Asking("auto", "auto", "auto_bf16")},  # by the template that lies with the model
    model_types=configs.ARCHITECTURES,
    kind=lambda config: "llama" if config.get("model_type") in configs.ARCHITECTURES else "",
    read_hf=_read_hf,
    check_original=None,
    read_original=None,
    write_hf=_write_hf,
    write_original=None,
    original_json=False,
    processors=lambda config, extras: {},
    from_record=llama_config.from_record,
    parameters=_parameters,
    pictures=None,
    positions=family.counted,
    templates=_templates,
    max_len=2048,
    layouts=lambda config: {layout.name: layout for layout in _LAYOUTS},
    describe=lambda config: {},
    network=_network,
)
