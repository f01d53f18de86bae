"""Building blocks shared by the tower, the projector and the decoder."""

from __future__ import annotations

from flax import nnx
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float

from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import lora

INIT_STDDEV = 0.02


class Linear(nnx.Module):
    """y = x W (+ b), with an optional low-rank adapter.

    The kernel is stored [in, out] and cast to x's dtype when used.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        use_bias: bool,
        adapter: configs.LoraConfig | None = None,
        stddev: float = INIT_STDDEV,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(stddev * jax.random.normal(rngs.params(), (in_width, out_width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((out_width,), jnp.float32)) if use_bias else None
        self.adapter = adapter
        if adapter is not None:
            self.lora_a = nnx.Param(lora.init_a(rngs.params(), (in_width, adapter.rank)))
            self.lora_b = nnx.Param(jnp.zeros((adapter.rank, out_width), jnp.float32))

    def __call__(self, x: Float[Array, "*rows i"], drawn: lora.Dropout | None = None) -> Float[Array, "*rows o"]:
        """[..., in] -> [..., out]. `drawn` enables the adapter's dropout."""
        # with rows in one dimension, XLA's CPU compiler makes no transposed copies for W's gradient
        flat = x.reshape(-1, x.shape[-1])
        y = flat @ self.kernel.astype(x.dtype)
        if self.adapter is not None:
            y = y + lora.delta(flat, self.lora_a[...], self.lora_b[...], self.adapter, drawn)
        if self.bias is not None:
            y = y + self.bias.astype(x.dtype)
        return y.reshape(*x.shape[:-1], y.shape[-1])


class RMSNorm(nnx.Module):
    """Root-mean-square norm; variance in fp32 (reference: transformers models/llama/modeling_llama.py)."""

    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.eps = eps

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return self.scale.astype(x.dtype) * normed.astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm; statistics in fp32."""

    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.eps = eps

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        x32 = x.astype(jnp.float32)
        mean = jnp.mean(x32, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(x32 - mean), axis=-1, keepdims=True)
        normed = (x32 - mean) * jax.lax.rsqrt(variance + self.eps)
        return (normed * self.scale.astype(jnp.float32) + self.bias.astype(jnp.float32)).astype(x.dtype)
