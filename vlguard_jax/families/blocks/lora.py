"""Low-rank adapters with PEFT semantics (reference: peft 0.10 tuners/lora/layer.py).

y += (alpha / rank) * B(A(dropout(x))). A is drawn from kaiming-uniform with a = sqrt(5), that is U(-1/sqrt(in),
1/sqrt(in)); B is zero, so that the adapted model starts as the base model. Only linear layers of the decoder have
adapters, not the vision tower, nor the projector, which is trained in full.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import Array
from jax.extend import random
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32, Int, Key, UInt32

from vlguard_jax.families.blocks import configs


def init_a(key: Key[Array, ""], shape: tuple[int, ...]) -> Float32[Array, "*layers i R"]:
    """Fresh A matrices f32[..., in, R]; B matrices start as zeros."""
    bound = shape[-2] ** -0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


class Dropout(NamedTuple):
    """What dropout is drawn by. key: of step, layer and projection, threefry. high, low: u32[n], conversation and
    position of each of n rows; the last 24 bits of `low` are zero, for the number of the feature."""

    key: Key[Array, ""]
    high: UInt32[Array, " n"]
    low: UInt32[Array, " n"]

    def folded(self, index: int | Int[Array, ""]) -> Dropout:
        """Of one layer, or of one projection."""
        return self._replace(key=jax.random.fold_in(self.key, index))


def dropout(key: Key[Array, ""], segment_ids: Int[Array, "B T"]) -> Dropout:
    """Dropout for every position, row by row, by its segment id and its place in the segment, both below 2^20: the same
    in whatever row they lie, beside whatever else."""
    at = jnp.broadcast_to(jnp.arange(segment_ids.shape[1]), segment_ids.shape)
    begins = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)))
    place = (at - jax.lax.cummax(jnp.where(begins, at, 0), axis=1)).reshape(-1).astype(jnp.uint32)
    return Dropout(key, segment_ids.reshape(-1).astype(jnp.uint32) << 12 | place >> 8, place << 24)


def _kept(drawn: Dropout, width: int, share: float) -> Bool[Array, "n i"]:
    """Which features are kept, `share` of them: threefry of 64 bits that tell position and feature, as JAX's own draws
    are threefry of the place in the array."""
    key = jax.random.key_data(drawn.key)
    shape = (len(drawn.high), width)
    high, low = (jnp.broadcast_to(word[:, None], shape) for word in (drawn.high, drawn.low))
    low = low | jax.lax.broadcasted_iota(jnp.uint32, shape, 1)
    first, second = random.threefry2x32_p.bind(key[0], key[1], high, low)
    return first ^ second < jnp.uint32(min(round(share * 2**32), 2**32 - 1))


def delta(
    x: Float[Array, "n i"],
    a: Float[Array, "i R"],
    b: Float[Array, "R o"],
    adapter: configs.LoraConfig,
    drawn: Dropout | None,
) -> Float[Array, "n o"]:
    """The adapter's addition to the layer's output, with inverted dropout on its input if `drawn` tells what by."""
    if drawn is not None and adapter.dropout > 0:
        keep = _kept(drawn, x.shape[1], 1.0 - adapter.dropout)
        x = jnp.where(keep, x / (1.0 - adapter.dropout), jnp.zeros((), x.dtype))
    return (x @ a.astype(x.dtype)) @ b.astype(x.dtype) * (adapter.alpha / adapter.rank)
