"""Draws tokens. A draw depends on the seed, the prompt and the token's place in its answer, and on nothing else."""

from __future__ import annotations

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float32, Int32, UInt32


def draw(
    scores: Float32[Array, "B V"],
    temperature: Float32[Array, " B"],
    tail: Float32[Array, " B"],
    seed: UInt32[Array, "B 2"],
    number: Int32[Array, " B"],
) -> Int32[Array, " B"]:
    """One id of each row, from softmax(scores / temperature) without its tail.

    A row of temperature 0 is drawn with 1. tail: see `without_tail`. seed: the run's, and a hash of the prompt. number:
    of the token in its answer.
    """
    scaled = scores / jnp.where(temperature > 0, temperature, 1)[:, None]
    kept = jax.lax.cond((tail > 0).any(), without_tail, lambda all_, _: all_, scaled, tail)

    def noise(seed: Array, number: Array) -> Array:
        # threefry by name: another generator, which a user may have made JAX's default, gives other answers.
        key = jax.random.fold_in(jax.random.key(seed[0], impl="threefry2x32"), seed[1])
        # "high": the usual 23 bits cannot reach tokens less likely than 1e-7
        return jax.random.gumbel(jax.random.fold_in(key, number), scores.shape[1:], jnp.float32, mode="high")

    return jnp.argmax(kept + jax.vmap(noise)(seed, number), axis=-1).astype(jnp.int32)


def without_tail(scores: Float32[Array, "B V"], tail: Float32[Array, " B"]) -> Float32[Array, "B V"]:
    """-inf in place of the least likely tokens that have a probability of at most `tail` together; 0: of none
    (reference: transformers TopPLogitsWarper; `tail` is its 1 - top_p)."""
    place = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    rising, order = jax.lax.sort((scores, place), num_keys=1)
    sums = jnp.cumsum(jax.nn.softmax(rising, axis=-1), axis=-1)
    out = (sums <= tail[:, None]) & (place < scores.shape[1] - 1) & (tail > 0)[:, None]
    _, gone = jax.lax.sort((order, out), num_keys=1)  # back in their places; a scatter is slow on TPUs
    return jnp.where(gone, -jnp.inf, scores)
