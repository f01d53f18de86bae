"""A model in memory, and the hash that names its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import lazy
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs

BASE_SHA256 = "base_sha256"  # in section family.PROVENANCE of config.json: fingerprint of the adapters' base
ADAPTER_RECORD = "vlguard_jax.json"  # that section by itself, beside adapters without a config.json
# Exponent bits, all set only in infinities and NaN: testing them is five times as fast as np.isfinite on 16 bits.
_EXPONENTS: dict[np.dtype, tuple[type, Any]] = {
    np.dtype(np.float16): (np.uint16, np.uint16(0x7C00)),
    np.dtype(ml_dtypes.bfloat16): (np.uint16, np.uint16(0x7F80)),
    np.dtype(np.float32): (np.uint32, np.uint32(0x7F800000)),
}
_BLOCK = 1 << 18  # numbers


@dataclasses.dataclass(frozen=True)
class Base:
    """The folder that adapters can name as their base.

    name: as it was given (a path, or a hub id with its revision).
    layout: that of its language model ("llava", "llava-hf", "llama").
    sha256: its `base_fingerprint`, which tells later if a folder of this name still holds the same weights.
    """

    name: str
    layout: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model in memory.

    params: nested dict of numpy arrays as in checkpoints/layouts.py (layers stacked; adapters beside their kernels).
      The leaves may also be objects with `shape` and `dtype` that make a layer of a stack on `[i]`, and an unstacked
      array on `[...]` (lazy.py): the model need not be in memory as a whole.
    lora: settings of the adapters in `params`, None without adapters.
    tokenizer_folder: folder of the tokenizer's files.
    weights_sha256: hash over path, stored dtype, shape and bytes of every array, independent of layout and sharding.
    layout: "llava", "llava-hf", "llama", "peft", "projector" (with a base) or "orbax".
    base: the folder that holds this language model and tower; None without one (adapters merged).
    extras: what saving needs and the model does not (families/extras.py).
    """

    config: family.Config
    params: dict[str, Any]
    lora: configs.LoraConfig | None = None
    tokenizer_folder: pathlib.Path = pathlib.Path()
    weights_sha256: str = ""
    layout: str = "llava"
    base: Base | None = None
    extras: extras_lib.Extras = dataclasses.field(default_factory=extras_lib.Extras)


class NotFiniteError(errors.UserError):
    """A weight is not finite.

    layer: index of the first such weight on the leading axis.
    """

    def __init__(self, name: str, value: float, layer: int):
        super().__init__(
            f"{name} holds {value}, and weights are finite numbers: the model is damaged; get it again, or"
            " make it again"
        )
        self.value = value
        self.layer = layer


def digest(path: str, value: np.ndarray) -> str:
    """sha256 of one contiguous array with its path, dtype and shape.

    Raises:
      NotFiniteError: a number in it is not finite.
    """
    state = hashing(path, value)
    flat = value.reshape(-1)
    for begin in range(0, flat.size, _BLOCK):
        block = flat[begin : begin + _BLOCK]  # still in the CPU cache when it is checked
        state.update(block.view(np.uint8).data)
        if not _finite(block):
            at = begin + int(np.argmin(np.isfinite(block)))
            raise NotFiniteError(path, float(flat[at]), at // max(1, flat.size // max(1, len(np.atleast_1d(value)))))
    return state.hexdigest()


def hashing(path: str, value: lazy.Leaf) -> Any:
    """The beginning of an array's hash, to which the bytes of its layers belong."""
    return hashlib.sha256(f"{path} {np.dtype(value.dtype).name} {list(value.shape)}\n".encode())


def digest_lazily(path: str, value: lazy.Leaf, stacked: bool) -> str:
    """`digest`, with one layer in memory. Raises as it, and what reading raises."""
    state = hashing(path, value)
    for i, layer in enumerate(lazy.layers(value, stacked)):
        where = value.where(i) if isinstance(value, lazy.Stored) else path
        check_finite(where, np.ascontiguousarray(layer), i, state.update)
    return state.hexdigest()


def check_finite(path: str, value: np.ndarray, layer: int, seen: Callable[[Any], object] | None = None) -> None:
    """Check that every number of a layer of the array at `path` is finite. value: contiguous; seen: gets its bytes.

    Raises:
      NotFiniteError: one is not.
    """
    flat = value.reshape(-1)
    for begin in range(0, flat.size, _BLOCK):
        block = flat[begin : begin + _BLOCK]
        if seen is not None:
            seen(block.view(np.uint8).data)  # still in the CPU cache when it is checked
        if not _finite(block):
            raise NotFiniteError(path, float(block[np.argmin(np.isfinite(block))]), layer)


def _finite(block: np.ndarray) -> bool:
    if block.dtype not in _EXPONENTS:
        return bool(np.isfinite(block).all())
    bits, exponent = _EXPONENTS[block.dtype]
    return bool((block.view(bits) & exponent).max() < exponent)


def combine(digests: Mapping[str, str]) -> str:
    """One hash of {path: digest}."""
    return hashlib.sha256("".join(f"{path} {digests[path]}\n" for path in sorted(digests)).encode()).hexdigest()


def base_fingerprint(digests: Mapping[str, str], config: family.Config, lora: configs.LoraConfig | None) -> str:
    """One hash, from a model's {id: digest}, over what adapter training does not change: language model and tower."""
    known = table.parameters_of(config, lora)
    return combine({id_: one for id_, one in digests.items() if known[id_].part not in ("projector", "adapter")})


def fingerprint(params: Mapping[str, Any]) -> str:
    """The `weights_sha256` of a parameter tree: a hash over path, dtype, shape and bytes of every array.

    Raises as `digest`.
    """
    return combine({path: digest(path, np.ascontiguousarray(value)) for path, value in trees.flatten(params).items()})
