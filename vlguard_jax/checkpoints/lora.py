"""Merges LoRA adapters of the parameter tree into their kernels."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families.blocks import configs


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
