"""The keys and values of tokens that were read, layer by layer, in the compute dtype or as int8.

An int8 cache has one fp32 scale for each token, head and layer: the largest magnitude of the vector over 127, so that
no number is cut off. It is half of a bf16 cache, and every read of it is exact in the scale: scores and sums are
multiplied by it after their products.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from vlguard_jax.families.blocks import configs

LARGEST = 127.0


class LayerCache(NamedTuple):
    """Of one layer, S places per row, heads before places, so that every product reads them where they lie. k, v:
    [B, K, S, E]; k_scale, v_scale: f32[B, K, S] if those are int8, else None."""

    k: Array
    v: Array
    k_scale: Array | None = None
    v_scale: Array | None = None

    @property
    def length(self) -> int:
        """S."""
        return self.k.shape[2]


Cache = tuple[LayerCache, ...]  # of all layers


def empty(config: configs.TextConfig, rows: int, length: int, dtype: jnp.dtype, *, int8: bool) -> Cache:
    """A cache without tokens. dtype: that of the model's computation."""
    shape = (rows, config.num_kv_heads, length, config.head_width)
    one = jnp.zeros(shape, jnp.int8 if int8 else dtype)
    scale = jnp.zeros(shape[:3], jnp.float32) if int8 else None
    return (LayerCache(one, one, scale, scale),) * config.num_layers


def of(k: Float[Array, "B T K E"], v: Float[Array, "B T K E"], *, int8: bool) -> LayerCache:
    """The cache of T tokens."""
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    if not int8:
        return LayerCache(k, v)
    (k, k_scale), (v, v_scale) = _rounded(k), _rounded(v)
    return LayerCache(k, v, k_scale, v_scale)


def _rounded(x: Float[Array, "*rows E"]) -> tuple[Array, Array]:
    wide = x.astype(jnp.float32)
    scale = jnp.abs(wide).max(axis=-1) / LARGEST
    parts = wide / jnp.where(scale > 0, scale, 1.0)[..., None]
    return jnp.round(parts).astype(jnp.int8), scale


def written(cache: LayerCache, new: LayerCache, at: Int[Array, " B"]) -> LayerCache:
    """The cache with C tokens at places `at` and after; they must fit."""
    if new.length == 1:  # a scatter of one column, which is written in place
        column = jax.vmap(lambda row, one, place: row.at[:, place].set(one[:, 0]))
        return jax.tree.map(column, cache, new, _like(cache, at))

    def put(row: Array, some: Array, place: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(row, some, place, axis=1)

    return jax.tree.map(jax.vmap(put), cache, new, _like(cache, at))


def _like(cache: LayerCache, at: Array) -> LayerCache:
    return jax.tree.map(lambda _: at, cache)


def attend(q: Float[Array, "B C H E"], cache: LayerCache, seen: Bool[Array, "B C S"]) -> Float[Array, "B C H E"]:
    """Attention of new positions to the `seen` places. Products in q's dtype, scores and softmax in fp32."""
    rows, new, heads, width = q.shape
    kv_heads, dtype = cache.k.shape[1], q.dtype
    grouped = q.reshape(rows, new, kv_heads, heads // kv_heads, width).transpose(0, 2, 3, 1, 4)
    scores = jnp.einsum("bkgce,bkse->bkgcs", grouped, cache.k.astype(dtype), preferred_element_type=jnp.float32)
    scores = scores * width**-0.5
    if cache.k_scale is not None:
        scores = scores * cache.k_scale[:, :, None, None]
    weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, jnp.finfo(jnp.float32).min), axis=-1)
    if cache.v_scale is not None:
        weights = weights * cache.v_scale[:, :, None, None]
    found = jnp.einsum("bkgcs,bkse->bkgce", weights.astype(dtype), cache.v.astype(dtype))
    return found.transpose(0, 3, 1, 2, 4).reshape(q.shape)
