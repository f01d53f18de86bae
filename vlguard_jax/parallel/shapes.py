"""Shapes of a batch, for compiling a program without data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding

from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.parallel import mesh as mesh_lib


def batch(
    model: family.Config, mesh: Mesh, rows: int, row_len: int, room: family.Room, *, micro: int | None = None
) -> types.Batch:
    """`rows` rows of `row_len` tokens over the whole mesh, with room for pictures in each row shard; `micro`: number of
    micro-batches on a leading axis."""
    leading = () if micro is None else (micro,)
    place: NamedSharding = mesh_lib.row_sharding(mesh, leading=len(leading))

    def of(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, *shape), dtype, sharding=place)

    tokens, weights = of((rows, row_len), jnp.int32), of((rows, row_len), jnp.float32)
    shards = mesh_lib.row_shards(mesh)
    pictures = {
        name: of((shards * one.shape[0], *one.shape[1:]), one.dtype)
        for name, one in batches.pooled(model, (), room).items()
    }
    return types.Batch(tokens, tokens, weights, tokens, tokens, pictures, tokens, tokens)
