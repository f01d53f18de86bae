"""Low-rank adapters with PEFT semantics (reference: peft 0.10 tuners/lora/layer.py).

y += (alpha / rank) * B(A(dropout(x))). A is drawn from kaiming-uniform with a = sqrt(5), that is U(-1/sqrt(in),
1/sqrt(in)); B is zero, so that the adapted model starts as the base model. Only linear layers of the decoder have
adapters, not the vision tower, nor the projector, which is trained in full.
"""

from __future__ import annotations

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Float32, Key

from vlguard_jax.families.blocks import configs


def init_a(key: Key[Array, ""], shape: tuple[int, ...]) -> Float32[Array, "*layers i R"]:
    """Fresh A matrices f32[..., in, R]; B matrices start as zeros."""
    bound = shape[-2] ** -0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def delta(
    x: Float[Array, "*rows i"],
    a: Float[Array, "i R"],
    b: Float[Array, "R o"],
    adapter: configs.LoraConfig,
    dropout_key: Key[Array, ""] | None,
) -> Float[Array, "*rows o"]:
    """The adapter's addition to the layer's output, with inverted dropout on its input if a key is given."""
    if dropout_key is not None and adapter.dropout > 0:
        keep = jax.random.bernoulli(dropout_key, 1.0 - adapter.dropout, x.shape)
        x = jnp.where(keep, x / (1.0 - adapter.dropout), jnp.zeros((), x.dtype))
    return (x @ a.astype(x.dtype)) @ b.astype(x.dtype) * (adapter.alpha / adapter.rank)
