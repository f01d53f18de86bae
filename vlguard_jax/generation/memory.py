"""Whether the slots' cache fits beside the weights, told before it is made."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.sharding import Mesh

from vlguard_jax import errors
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import configs
from vlguard_jax.parallel import mesh as mesh_lib

KEPT = 0.1  # share of a device's memory for what a program needs besides weights and cache
GIB = 2.0**30


def limit(mesh: Mesh) -> int | None:
    """Bytes of one device of this process; None where it does not say (CPUs)."""
    own = next(device for device in mesh.devices.flat if device.process_index == jax.process_index())
    return (own.memory_stats() or {}).get("bytes_limit")


def check(model: functional.Model, mesh: Mesh, params: Any, slots: int, length: int, beside: int, number: int) -> None:
    """Refuse slots whose cache does not fit. slots: in all; length: of their cache, answers included. beside: bytes on
    a device that are kept of prefixes. number: bytes of one of the cache's numbers.

    Raises:
      UserError: fewer fit; their number is named.
    """
    of_device = limit(mesh)
    if of_device is None:
        return
    text, tensor = model.config.text, mesh.shape["tensor"]
    one = of_token(text, number, tensor) * length
    weights = sum(own(leaf) for leaf in jax.tree.leaves(params)) + beside
    shards = mesh_lib.row_shards(mesh)
    fits = fitting(of_device, weights, one) * shards
    if fits < slots:
        way = f"set it to {fits} or less" if fits else "divide the model with --config.mesh.tensor"
        raise errors.UserError(
            f"config.decode.batch_size: {slots} answers at a time take {slots // shards * one / GIB:.1f} GiB of cache"
            f" on each device beside {weights / GIB:.1f} of weights and kept prefixes, and it has"
            f" {of_device / GIB:.1f}; {way}"
        )


def of_token(text: configs.TextConfig, number: int, tensor: int) -> int:
    """Bytes of the keys and values of a token, all layers, on one of `tensor` devices that divide the heads. number:
    bytes of one of their numbers; those of one byte have a scale of four for each head."""
    head = text.head_width * number + (4 if number == 1 else 0)
    return 2 * text.num_layers * text.num_kv_heads // tensor * head


def fitting(of_device: int | float, beside: int | float, one: int | float, needed: int | float = 0) -> int:
    """Slots of a row shard for which a device has room, with a cache of `one` bytes each. beside: bytes of what else
    stays there. needed: what programs need besides, where it is known to be more than the share KEPT."""
    return max(0, math.floor((min((1 - KEPT) * of_device, of_device - needed) - beside) / one))


def own(array: jax.Array | jax.ShapeDtypeStruct) -> int:
    """Bytes of an array on one device."""
    return math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize
