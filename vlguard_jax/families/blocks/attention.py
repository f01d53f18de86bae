"""Attention behind one function signature, so that backends can be exchanged.

Self-attention over packed rows is defined by segment ids: position t attends to s if s <= t and both are in the same
segment. For attention to tokens that were read before see cache.py.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

SelfAttention = Callable[[Array, Array, Array, Array], Array]


def _attend(
    q: Float[Array, "B T H E"], k: Float[Array, "B S K E"], v: Float[Array, "B S K E"], seen: Bool[Array, "#B #T S"]
) -> Float[Array, "B T H E"]:
    """Scores and softmax in fp32, products in the inputs' dtype; a fully masked row gives the mean of v, never NaN.

    `jax.nn.dot_product_attention` needs a dot algorithm in fp16 that only some platforms have, hence these few lines.
    """
    rows, length, heads, width = q.shape
    grouped = q.reshape(rows, length, k.shape[2], heads // k.shape[2], width)
    scores = jnp.einsum("btkge,bske->bkgts", grouped, k, preferred_element_type=jnp.float32) * width**-0.5
    scores = jnp.where(seen[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bske->btkge", weights, v).reshape(q.shape)


def causal_xla(
    q: Float[Array, "B T H E"], k: Float[Array, "B T K E"], v: Float[Array, "B T K E"], segment_ids: Int[Array, "B T"]
) -> Float[Array, "B T H E"]:
    """Causal self-attention within segments; H is a multiple of K (grouped-query attention). The reference backend."""
    length = q.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    return _attend(q, k, v, causal & (segment_ids[:, :, None] == segment_ids[:, None, :]))


def causal_blocks(
    q: Float[Array, "B T H E"], k: Float[Array, "B T K E"], v: Float[Array, "B T K E"], segment_ids: Int[Array, "B T"]
) -> Float[Array, "B T H E"]:
    """`causal_xla` in blocks of queries, each against the keys up to its end: half the scores of a long row are never
    computed. For CPUs, where their memory traffic is most of the cost; at most 8 blocks, to keep the program short."""
    length = q.shape[1]
    size = max(128, -(-length // 8))
    found = []
    for start in range(0, length, size):
        end = min(start + size, length)
        causal = jnp.arange(start, end)[:, None] >= jnp.arange(end)
        seen = causal & (segment_ids[:, start:end, None] == segment_ids[:, None, :end])
        found.append(_attend(q[:, start:end], k[:, :end], v[:, :end], seen))
    return found[0] if len(found) == 1 else jnp.concatenate(found, axis=1)


def full_xla(
    q: Float[Array, "N P H E"], k: Float[Array, "N P H E"], v: Float[Array, "N P H E"]
) -> Float[Array, "N P H E"]:
    """Attention of every position to every other (vision tower)."""
    return _attend(q, k, v, jnp.ones((1, 1, k.shape[1]), bool))
