"""CLIP vision transformer (reference: transformers models/clip/modeling_clip.py, llava
multimodal_encoder/clip_encoder.py).

All layers and the last norm are stored, so that a checkpoint is saved as it was loaded; the forward pass stops at
`feature_layer`.
"""

from __future__ import annotations

from flax import nnx
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, UInt8

from vlguard_jax.families.blocks import attention
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import layers


def normalize(images: UInt8[Array, "N S S 3"], config: configs.VisionConfig) -> Float[Array, "N S S 3"]:
    """u8 -> fp32 pixels, (x / 255 - mean) / std per channel, like the CLIP image processor."""
    mean, std = (jnp.asarray(c, jnp.float32) for c in (config.image_mean, config.image_std))
    return (images.astype(jnp.float32) * (1.0 / 255.0) - mean) / std


def _activation(name: str):
    if name == "quick_gelu":
        return lambda x: x * jax.nn.sigmoid(1.702 * x)
    if name == "gelu":
        return lambda x: jax.nn.gelu(x, approximate=False)
    raise ValueError(f"unknown activation {name!r}")


class PatchEmbed(nnx.Module):
    """Bias-free patch convolution, stored as kernel [p, p, 3, D]."""

    def __init__(self, config: configs.VisionConfig, rngs: nnx.Rngs):
        shape = (config.patch_size, config.patch_size, 3, config.width)
        self.kernel = nnx.Param(layers.INIT_STDDEV * jax.random.normal(rngs.params(), shape, jnp.float32))

    def __call__(self, pixels: Float[Array, "N S S 3"]) -> Float[Array, "N P D"]:
        p, width = self.kernel.shape[0], self.kernel.shape[-1]
        n, side = pixels.shape[0], pixels.shape[1] // self.kernel.shape[0]
        # Pixels on the right and bottom that do not fill a patch are dropped, as in a strided convolution.
        patches = pixels[:, : side * p, : side * p].reshape(n, side, p, side, p, 3).transpose(0, 1, 3, 2, 4, 5)
        return patches.reshape(n, side * side, p * p * 3) @ self.kernel.astype(pixels.dtype).reshape(p * p * 3, width)


class Attention(nnx.Module):
    """Multi-head attention with biases."""

    def __init__(self, config: configs.VisionConfig, rngs: nnx.Rngs):
        self.num_heads = config.num_heads
        self.q_proj = layers.Linear(config.width, config.width, use_bias=True, rngs=rngs)
        self.k_proj = layers.Linear(config.width, config.width, use_bias=True, rngs=rngs)
        self.v_proj = layers.Linear(config.width, config.width, use_bias=True, rngs=rngs)
        self.out_proj = layers.Linear(config.width, config.width, use_bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "N P D"]) -> Float[Array, "N P D"]:
        q, k, v = (
            proj(x).reshape(*x.shape[:2], self.num_heads, -1) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attention.full_xla(q, k, v).reshape(x.shape))


class Mlp(nnx.Module):
    """Two linear layers with CLIP's activation in between."""

    def __init__(self, config: configs.VisionConfig, rngs: nnx.Rngs):
        self.activation = config.activation
        self.fc1 = layers.Linear(config.width, config.mlp_width, use_bias=True, rngs=rngs)
        self.fc2 = layers.Linear(config.mlp_width, config.width, use_bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "N P D"]) -> Float[Array, "N P D"]:
        return self.fc2(_activation(self.activation)(self.fc1(x)))


class Block(nnx.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: configs.VisionConfig, rngs: nnx.Rngs):
        self.attention_norm = layers.LayerNorm(config.width, config.norm_eps)
        self.attention = Attention(config, rngs)
        self.mlp_norm = layers.LayerNorm(config.width, config.norm_eps)
        self.mlp = Mlp(config, rngs)

    def __call__(self, x: Float[Array, "N P D"]) -> Float[Array, "N P D"]:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Tower(nnx.Module):
    """Vision tower: pixels -> patch features of `feature_layer`, without class token and last norm."""

    def __init__(self, config: configs.VisionConfig, rngs: nnx.Rngs):
        self.config = config
        self.patch = PatchEmbed(config, rngs)
        self.class_token = nnx.Param(
            layers.INIT_STDDEV * jax.random.normal(rngs.params(), (config.width,), jnp.float32)
        )
        positions = (config.num_patches + 1, config.width)
        self.positions = nnx.Param(layers.INIT_STDDEV * jax.random.normal(rngs.params(), positions, jnp.float32))
        self.pre_norm = layers.LayerNorm(config.width, config.norm_eps)
        self.layers = nnx.vmap(lambda r: Block(config, r))(rngs.split(config.num_layers))
        self.post_norm = layers.LayerNorm(config.width, config.norm_eps)

    def __call__(self, pixels: Float[Array, "N S S 3"]) -> Float[Array, "N P D"]:
        """Features in the dtype of `pixels`."""
        x = self.patch(pixels)
        first = jnp.broadcast_to(self.class_token.astype(x.dtype), (x.shape[0], 1, x.shape[2]))
        x = self.pre_norm(jnp.concatenate([first, x], axis=1) + self.positions.astype(x.dtype))
        # Hidden state 0 is the embedding, so index i >= 0 is the output after i layers; -1 is that of the last.
        wanted = self.config.feature_layer
        count = wanted if wanted >= 0 else self.config.num_layers + 1 + wanted
        graph, stacked = nnx.split(self.layers)
        used = jax.tree.map(lambda w: w[:count], stacked)
        x, _ = jax.lax.scan(lambda h, w: (nnx.merge(graph, w)(h), None), x, used)
        return x[:, 1:]
