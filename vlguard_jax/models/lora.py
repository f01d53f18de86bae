"""Low-rank adapters with PEFT semantics (reference: peft 0.10 tuners/lora/layer.py).

y += (alpha / rank) * B(A(dropout(x))). A is drawn from kaiming-uniform with a = sqrt(5), that is U(-1/sqrt(in), 1/sqrt(in)); B is
zero, so that the adapted model starts as the base model. Adapters sit on linear layers of the decoder only: never on the vision
tower, never on the projector, which is trained in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import traverse_util
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Float32, Key

from vlguard_jax.models import config as model_config


def init(
    key: Key[Array, ""], in_width: int, out_width: int, rank: int
) -> tuple[Float32[Array, "i R"], Float32[Array, "R o"]]:
    """Fresh adapter matrices A f32[in, R] and B f32[R, out]."""
    bound = in_width**-0.5
    a = jax.random.uniform(key, (in_width, rank), jnp.float32, -bound, bound)
    return a, jnp.zeros((rank, out_width), jnp.float32)


def delta(
    x: Float[Array, "*rows i"],
    a: Float[Array, "i R"],
    b: Float[Array, "R o"],
    adapter: model_config.LoraConfig,
    dropout_key: Key[Array, ""] | None,
) -> Float[Array, "*rows o"]:
    """What the adapter adds to the layer's output; inverted dropout on its input when a key is given."""
    if dropout_key is not None and adapter.dropout > 0:
        keep = jax.random.bernoulli(dropout_key, 1.0 - adapter.dropout, x.shape)
        x = jnp.where(keep, x / (1.0 - adapter.dropout), jnp.zeros((), x.dtype))
    return (x @ a.astype(x.dtype)) @ b.astype(x.dtype) * (adapter.alpha / adapter.rank)


def is_adapter(path: str) -> bool:
    """Whether a dotted parameter path names an adapter matrix."""
    return path.endswith((".lora_a", ".lora_b"))


def merge(params: Mapping[str, Any], adapter: model_config.LoraConfig) -> dict[str, Any]:
    """Fold every adapter into its kernel: W + (alpha / rank) * A B, summed in fp32, cast back to the kernel's dtype.

    `params` is a nested tree with stacked layers (A [L, in, R], B [L, R, out]); the result has no adapter leaves.
    """
    flat = traverse_util.flatten_dict(params, sep=".")
    merged = {path: value for path, value in flat.items() if not is_adapter(path)}
    for path in flat:
        if path.endswith(".lora_a"):
            layer = path.removesuffix(".lora_a")
            a, b = (jnp.asarray(flat[f"{layer}.{name}"], jnp.float32) for name in ("lora_a", "lora_b"))
            with jax.default_matmul_precision("highest"):
                update = jnp.einsum("...ir,...ro->...io", a, b) * (adapter.alpha / adapter.rank)
            kernel = merged[f"{layer}.kernel"]
            merged[f"{layer}.kernel"] = (jnp.asarray(kernel, jnp.float32) + update).astype(kernel.dtype)
    return traverse_util.unflatten_dict(merged, sep=".")
