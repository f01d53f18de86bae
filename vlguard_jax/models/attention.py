"""Attention behind one function, so that backends can be exchanged.

Self-attention over packed rows is described by segment ids alone: position t sees s when s <= t and both are of one segment.
Attention over a cache is described by a mask of valid slots.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

SelfAttention = Callable[[Array, Array, Array, Array], Array]


def causal_xla(
    q: Float[Array, "B T H E"], k: Float[Array, "B T K E"], v: Float[Array, "B T K E"], segment_ids: Int[Array, "B T"]
) -> Float[Array, "B T H E"]:
    """Causal self-attention within segments, softmax in fp32; H a multiple of K (grouped queries). The reference backend."""
    length = q.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return jax.nn.dot_product_attention(q, k, v, mask=(causal & same)[:, None], implementation="xla")


def full_xla(q: Float[Array, "N P H E"], k: Float[Array, "N P H E"], v: Float[Array, "N P H E"]) -> Float[Array, "N P H E"]:
    """Attention of every position to every other (vision tower)."""
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")


def cached_xla(
    q: Float[Array, "B C H E"], k: Float[Array, "B S K E"], v: Float[Array, "B S K E"], valid: Bool[Array, "B C S"]
) -> Float[Array, "B C H E"]:
    """Attention of new positions to a key-value cache of S slots, of which `valid` may be seen."""
    return jax.nn.dot_product_attention(q, k, v, mask=valid[:, None], implementation="xla")
