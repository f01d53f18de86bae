"""The JSON files that a saved checkpoint of any family needs besides its config.json and its weights."""

from __future__ import annotations

from typing import Any

from vlguard_jax import errors
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import peft_config
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import config_json


def provenance(model: checkpoint.Checkpoint) -> dict[str, Any]:
    """How the model was made, as a section of `config.json` that other programs ignore."""
    return {family.PROVENANCE: model.extras["provenance"]} if model.extras.get("provenance") else {}


def generation_json(model: checkpoint.Checkpoint, pad_token_id: int | None) -> dict[str, Any]:
    """`generation_config.json`; `pad_token_id` None keeps the original's if it is in the vocabulary."""
    original = dict(model.extras.get("generation_config", {}))
    for key in ("bos_token_id", "eos_token_id"):
        if (value := config_json.known(model.extras, key)) is not None:
            original.setdefault(key, value)
    pad = original.pop("pad_token_id", None) if pad_token_id is None else pad_token_id
    if pad is not None and (pad_token_id is not None or pad < model.config.text.vocab_size):
        original["pad_token_id"] = pad
    return original


def adapter_json(model: checkpoint.Checkpoint, base: str) -> dict[str, Any]:
    """`adapter_config.json` with the keys of peft 0.10 (src/peft/tuners/lora/config.py)."""
    assert model.lora is not None
    repo, _, revision = base.partition("@") if hub.id_of(base) else (base, "", "")
    ours = {
        "base_model_name_or_path": repo,
        "revision": revision or None,
        "r": model.lora.rank,
        "lora_alpha": int(model.lora.alpha) if model.lora.alpha == int(model.lora.alpha) else model.lora.alpha,
        "lora_dropout": model.lora.dropout,
        "target_modules": list(model.lora.targets),
    }
    fixed = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_dora": False,
        "use_rslora": False,
        "alpha_pattern": {},
        "rank_pattern": {},
        "loftq_config": {},
        "megatron_core": "megatron.core",
    }
    unset = (
        "auto_mapping",
        "layer_replication",
        "layers_pattern",
        "layers_to_transform",
        "megatron_config",
        "modules_to_save",
        "revision",
    )
    known = model.extras.get("adapter_config", {})
    kept = {key: known[key] for key in peft_config.HARMLESS if key in known and key != "auto_mapping"}
    return dict.fromkeys(unset) | fixed | kept | ours


def original_json(model: checkpoint.Checkpoint, dtype: str) -> dict[str, Any]:
    """`config.json` of LLaVA's own layout.

    Raises:
      UserError: the model's family has none.
    """
    write = table.of(model.config).write_original
    if write is None:
        raise errors.UserError(
            "a language model without vision tower and projector cannot be saved as llava; save as hf, or its adapters"
            " as peft-hf"
        )
    return write(model.config, model.extras, dtype)
