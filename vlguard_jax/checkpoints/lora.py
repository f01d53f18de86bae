"""LoRA adapters: their PEFT settings, and merging them into their kernels."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families.blocks import configs

# Keys of `adapter_config.json` that change neither the base nor the forward pass, or only together with another key
# that is checked (settings of an initialization, for example). All keys: src/peft/tuners/lora/config.py of peft 0.3 to
# 0.21.
_HARMLESS = (
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "merge_weights",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
)
_READ = ("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules")
# Initializations that do not change the base; others subtract the initial adapter from it, or round it.
_INITIALIZATIONS = (True, False, None, "gaussian", "orthogonal", "eva")
_CONVERTIBLE = ("pissa", "olora", "corda", "lora_ga")
_CONVERT = (
    "it changes the base's weights before training; save the adapter with peft's save_pretrained(...,"
    " path_initial_model_for_weight_conversion=FOLDER_OF_THE_UNTRAINED_ADAPTER), which fits the unchanged base"
)
_MERGE = "where peft can merge it, merge it there (merge_and_unload) and load the merged model"


def from_peft(config: Mapping[str, Any], where: str) -> configs.LoraConfig:
    """Read `adapter_config.json`.

    A key that is not known to be harmless must be off (absent, null, false or empty).

    Raises:
      UserError: another kind of adapter, a setting that changes the base or the arithmetic, an unknown one, or one of a
        wrong type.
    """
    if config.get("peft_type") != "LORA":
        raise errors.UserError(
            f"{where}: peft_type={errors.short(config.get('peft_type'))} is not supported (only 'LORA')"
        )
    _refuse_other_arithmetic(config, where)
    modules = config.get("target_modules")
    if (
        not isinstance(modules, list)
        or not modules
        or not all(isinstance(m, str) and m in configs.LINEARS for m in modules)
    ):
        known = ", ".join(configs.LINEARS)
        raise errors.UserError(
            f"{where}: target_modules={errors.short(modules)} is not supported; a list out of {known} was expected"
        )
    found = fields.Fields(config, where)
    # null is not peft's default
    rank, alpha = found.size("r"), found.number("lora_alpha", None if "lora_alpha" in config else 8.0)
    dropout = found.number("lora_dropout", None if "lora_dropout" in config else 0.0, least=0.0, most=1.0)
    if dropout == 1:
        raise found.wrong("lora_dropout", "below 1")
    targets = tuple(name for name in configs.LINEARS if name in modules)
    return configs.LoraConfig(rank, alpha, dropout, targets)


def _refuse_other_arithmetic(config: Mapping[str, Any], where: str) -> None:
    for key, value in config.items():
        if key in _HARMLESS or key in _READ or value is None or value is False or value in ({}, []):
            continue
        if key == "bias" and value == "none":
            continue
        if key == "init_lora_weights":
            if any(value is known or (isinstance(value, str) and value == known) for known in _INITIALIZATIONS):
                continue
            convertible = isinstance(value, str) and value.lower().startswith(_CONVERTIBLE)
            raise errors.UserError(
                f"{where}: {key}={errors.short(value)} is not supported: {_CONVERT if convertible else _MERGE}"
            )
        shown = key if key.isidentifier() and len(key) < 100 else errors.short(key)
        raise errors.UserError(f"{where}: {shown}={errors.short(value)} is not supported; {_MERGE}")


@dataclasses.dataclass(frozen=True)
class Merged:
    """A kernel [L, in, out] with its adapter folded in: W + alpha / r * A @ B, computed in fp32, kept in W's dtype.

    `merged[i]` computes layer i (peft 0.10, tuners/lora/layer.py, `merge`). a: [L, in, r], b: [L, r, out]; all three
    are arrays, or make a layer on `[i]`.
    """

    kernel: Any
    a: Any
    b: Any
    lora: configs.LoraConfig

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""
        return self.kernel.shape

    @property
    def dtype(self) -> np.dtype:
        """As numpy's."""
        return self.kernel.dtype

    def __getitem__(self, layer: int) -> np.ndarray:
        result = self.kernel[layer].astype(np.float32)
        delta = self.a[layer].astype(np.float32) @ self.b[layer].astype(np.float32)
        with np.errstate(over="ignore"):  # writing and hashing report infinities by name
            delta *= np.float32(self.lora.alpha / self.lora.rank)
            result += delta
            return result.astype(self.dtype, copy=False)


def _merge_late(params: Mapping[str, Any], lora: configs.LoraConfig | None) -> dict[str, Any]:
    """{path: leaf} of the tree with a `Merged` in place of every kernel that has an adapter."""
    flat = trees.flatten(params)
    merged = {path: value for path, value in flat.items() if not path.endswith((".lora_a", ".lora_b"))}
    for path in [p for p in flat if p.endswith(".lora_a")]:
        if lora is None:
            raise ValueError(f"{path}: an adapter without its LoraConfig")
        stem = path.removesuffix("lora_a")
        merged[f"{stem}kernel"] = Merged(flat[f"{stem}kernel"], flat[path], flat[f"{stem}lora_b"], lora)
    return merged


def merge_lora(params: Mapping[str, Any], lora: configs.LoraConfig | None) -> dict[str, Any]:
    """Return the tree of arrays with every adapter folded into its kernel, see `Merged`.

    Works layer by layer: memory holds one layer in fp32 besides the result.
    """
    flat = _merge_late(params, lora)
    for path, value in flat.items():
        if isinstance(value, Merged):
            flat[path] = np.empty(value.shape, value.dtype)
            for i in range(len(flat[path])):
                flat[path][i] = value[i]
    return trees.unflatten(flat)


def merge(model: checkpoint.Checkpoint) -> checkpoint.Checkpoint:
    """The same model with its adapters merged (`merge_lora`) and no base; unchanged if it has none."""
    if model.lora is None:
        return model
    params = merge_lora(model.params, model.lora)
    return dataclasses.replace(_without_base(model, params), weights_sha256=checkpoint.fingerprint(params))


def merge_late(model: checkpoint.Checkpoint) -> checkpoint.Checkpoint:
    """`merge` for a writer that reads one layer at a time: each is computed when it is read, and no hash is."""
    if model.lora is None:
        return model
    return _without_base(model, trees.unflatten(_merge_late(model.params, model.lora)))


def _without_base(model: checkpoint.Checkpoint, params: dict[str, Any]) -> checkpoint.Checkpoint:
    extras = extras_lib.Extras(**model.extras)
    extras.pop("adapter_config", None)
    return dataclasses.replace(model, params=params, lora=None, weights_sha256="", base=None, extras=extras)
