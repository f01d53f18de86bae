"""LoRA adapters: their PEFT settings, and merging them into the kernels they stand beside."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import layouts
from vlguard_jax.models import config as model_config


def from_peft(config: Mapping[str, Any], where: str) -> model_config.LoraConfig:
    """Read `adapter_config.json`.

    Raises:
      UserError: another kind of adapter, or a PEFT feature that changes the arithmetic and is not supported.
    """
    if config.get("peft_type") != "LORA":
        raise errors.UserError(f"{where}: peft_type={config.get('peft_type')!r} is not supported (only 'LORA')")
    for key in ("use_dora", "use_rslora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform"):
        if config.get(key):
            raise errors.UserError(f"{where}: {key}={config[key]!r} is not supported")
    if config.get("bias", "none") != "none":
        raise errors.UserError(f"{where}: bias={config['bias']!r} is not supported (only 'none')")
    by_name = {name.rsplit(".", 1)[1]: ours for ours, (_, name) in layouts.LINEARS.items()}
    modules = config.get("target_modules")
    if not isinstance(modules, list) or not modules or not set(modules) <= set(by_name):
        raise errors.UserError(f"{where}: target_modules={modules!r} is not supported; a list out of {', '.join(by_name)} was expected")
    rank = config.get("r")
    if not isinstance(rank, int) or rank < 1:
        raise errors.UserError(f"{where}: r={rank!r} must be a positive whole number")
    targets = tuple(ours for module, ours in by_name.items() if module in modules)
    return model_config.LoraConfig(rank, float(config.get("lora_alpha", 8)), float(config.get("lora_dropout", 0.0)), targets)


def merge_lora(params: Mapping[str, Any], lora: model_config.LoraConfig | None) -> dict[str, Any]:
    """Return the tree with every adapter folded into its kernel: W + alpha / r * A @ B, computed in fp32, kept in W's dtype.

    Layer by layer, so that memory holds one layer in fp32 besides the result (peft 0.10, tuners/lora/layer.py, `merge`).
    """
    flat = trees.flatten(params)
    merged = {path: value for path, value in flat.items() if not path.endswith((".lora_a", ".lora_b"))}
    for path in [p for p in flat if p.endswith(".lora_a")]:
        if lora is None:
            raise ValueError(f"{path}: an adapter without its LoraConfig")
        stem = path.removesuffix("lora_a")
        kernel, a, b = np.array(flat[f"{stem}kernel"]), np.asarray(flat[path]), np.asarray(flat[f"{stem}lora_b"])
        scale = np.float32(lora.alpha / lora.rank)
        for i in range(len(kernel)):
            delta = a[i].astype(np.float32) @ b[i].astype(np.float32)
            kernel[i] = (kernel[i].astype(np.float32) + scale * delta).astype(kernel.dtype)
        merged[f"{stem}kernel"] = kernel
    return trees.unflatten(merged)


def merge(model: checkpoint.Checkpoint) -> checkpoint.Checkpoint:
    """The same model without adapters (`merge_lora`); a model without adapters is returned as it is."""
    if model.lora is None:
        return model
    params = merge_lora(model.params, model.lora)
    return dataclasses.replace(model, params=params, lora=None, weights_sha256=checkpoint.fingerprint(params))
