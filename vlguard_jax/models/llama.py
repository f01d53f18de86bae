"""Llama-family decoder (reference: transformers models/llama/modeling_llama.py).

RMSNorm, rotary embedding (half-split), grouped-query attention, SwiGLU, no biases. Layers are stacked on a leading axis
and scanned.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import NamedTuple

from flax import nnx
import jax
from jax import Array
from jax import ad_checkpoint
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int, Key

from vlguard_jax.models import attention
from vlguard_jax.models import config as model_config
from vlguard_jax.models import layers

DropoutKey = Key[Array, ""] | None
Constraint = Callable[[Array], Array]
ByRows = Callable[..., Array]
PutPictures = Callable[[Array, Array, Array], Array]
LAYER_INPUT = "layer_input"


def _as_is(x: Array) -> Array:
    return x


def directly(function: Callable[..., Array], shared: Array, *rows: Array) -> Array:
    """What `Execution.by_rows` is on one device."""
    return function(shared, *rows)


def put_pictures(
    features: Float[Array, "N P D"], image_slot: Int[Array, "B T"], x: Float[Array, "B T D"]
) -> Float[Array, "B T D"]:
    """x with patch features where image_slot >= 0."""
    flat = features.reshape(-1, features.shape[-1])
    return jnp.where((image_slot >= 0)[..., None], flat[jnp.maximum(image_slot, 0)], x)


# What is kept of a layer for the backward pass; the rest is computed again. full: its input. offload: its input, in the
# host's memory. minimal: its input and the outputs of its matrix products (not the attention's). Beside these, "none":
# everything.
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the layers run; changes nothing but rounding, speed and memory."""

    self_attention: attention.SelfAttention = attention.causal_xla
    remat: str = "none"  # what the backward pass keeps of a layer: a name in REMAT
    unroll: int = 1
    rows: Constraint = _as_is  # puts [B, ...] where the rows of a batch lie
    # (function, shared, *arrays [B, ...]) -> function(shared, *arrays) for each device's rows
    by_rows: ByRows = directly
    put_pictures: PutPictures = put_pictures  # (features [N, P, D], image_slot [B, T], x [B, T, D]) -> [B, T, D]


class Cache(NamedTuple):
    """Keys and values of all layers, S slots a row: [L, B, S, K, E] each."""

    k: Array
    v: Array


def inverse_frequencies(config: model_config.TextConfig) -> Float32[Array, " half"]:
    """Rotary inverse frequencies f32[E/2], with linear or llama3 scaling (reference: transformers
    modeling_rope_utils.py)."""
    exponent = jnp.arange(0, config.head_width, 2, dtype=jnp.float32) / config.head_width
    inverse = 1.0 / (config.rope_theta**exponent)
    scaling = config.rope_scaling
    if scaling is None:
        return inverse
    if scaling.kind == "linear":
        return inverse / scaling.factor
    if scaling.kind != "llama3":
        raise ValueError(f"unknown rotary scaling {scaling.kind!r}")
    wavelength = 2 * math.pi / inverse
    low = scaling.original_max_position / scaling.low_freq_factor
    high = scaling.original_max_position / scaling.high_freq_factor
    share = (scaling.original_max_position / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    between = (1 - share) * inverse / scaling.factor + share * inverse
    scaled = jnp.where(wavelength > low, inverse / scaling.factor, between)
    return jnp.where(wavelength < high, inverse, scaled)


def rotate(
    x: Float[Array, "B T H E"], positions: Int[Array, "B T"], inverse: Float32[Array, " half"]
) -> Float[Array, "B T H E"]:
    """Rotary embedding; angles in fp32, cos and sin rounded to x's dtype before use, as the reference does."""
    angle = positions[..., None].astype(jnp.float32) * inverse
    cos, sin = (jnp.concatenate([f(angle)] * 2, axis=-1)[:, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-second, first], axis=-1) * sin


def _adapter(lora: model_config.LoraConfig | None, name: str) -> model_config.LoraConfig | None:
    return lora if lora is not None and name in lora.targets else None


def _layer_key(key: DropoutKey, index: int | Int[Array, ""]) -> DropoutKey:
    return None if key is None else jax.random.fold_in(key, index)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: model_config.TextConfig, lora: model_config.LoraConfig | None, rngs: nnx.Rngs):
        self.config = config
        inner, kv = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
        sizes = {
            "q": (config.width, inner),
            "k": (config.width, kv),
            "v": (config.width, kv),
            "o": (inner, config.width),
        }
        for name, (n_in, n_out) in sizes.items():
            setattr(self, name, layers.Linear(n_in, n_out, use_bias=False, adapter=_adapter(lora, name), rngs=rngs))

    def project(
        self, x: Float[Array, "B T D"], positions: Int[Array, "B T"], key: DropoutKey
    ) -> tuple[Float[Array, "B T H E"], Float[Array, "B T K E"], Float[Array, "B T K E"]]:
        """Rotated queries and keys, and values."""
        inverse = inverse_frequencies(self.config)
        q, k, v = (
            proj(x, _layer_key(key, i)).reshape(*x.shape[:2], -1, self.config.head_width)
            for i, proj in enumerate((self.q, self.k, self.v))
        )
        return rotate(q, positions, inverse), rotate(k, positions, inverse), v

    def output(self, heads: Float[Array, "B T H E"], key: DropoutKey) -> Float[Array, "B T D"]:
        return self.o(heads.reshape(*heads.shape[:2], -1), _layer_key(key, 3))


class Mlp(nnx.Module):
    """SwiGLU."""

    def __init__(self, config: model_config.TextConfig, lora: model_config.LoraConfig | None, rngs: nnx.Rngs):
        for name in ("gate", "up"):
            adapter = _adapter(lora, name)
            setattr(
                self, name, layers.Linear(config.width, config.mlp_width, use_bias=False, adapter=adapter, rngs=rngs)
            )
        self.down = layers.Linear(
            config.mlp_width, config.width, use_bias=False, adapter=_adapter(lora, "down"), rngs=rngs
        )

    def __call__(self, x: Float[Array, "B T D"], key: DropoutKey) -> Float[Array, "B T D"]:
        hidden = jax.nn.silu(self.gate(x, _layer_key(key, 4))) * self.up(x, _layer_key(key, 5))
        return self.down(hidden, _layer_key(key, 6))


class Block(nnx.Module):
    """One decoder layer."""

    def __init__(self, config: model_config.TextConfig, lora: model_config.LoraConfig | None, rngs: nnx.Rngs):
        self.attention_norm = layers.RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config, lora, rngs)
        self.mlp_norm = layers.RMSNorm(config.width, config.norm_eps)
        self.mlp = Mlp(config, lora, rngs)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        self_attention: attention.SelfAttention,
        key: DropoutKey = None,
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array]]:
        """One layer over whole rows; also its keys and values [B, T, K, E], from which a prefill fills the cache."""
        q, k, v = self.attention.project(self.attention_norm(x), positions, key)
        x = x + self.attention.output(self_attention(q, k, v, segment_ids), key)
        return x + self.mlp(self.mlp_norm(x), key), (k, v)

    def decode(
        self, x: Float[Array, "B 1 D"], position: Int[Array, " B"], cache: Cache, layer: Int[Array, ""]
    ) -> tuple[Float[Array, "B 1 D"], Cache]:
        """One layer for one new token a row, written at slot `position` of the cache and attending to slots up to
        it."""
        q, k, v = self.attention.project(self.attention_norm(x), position[:, None], None)
        rows = jnp.arange(x.shape[0])
        cache = Cache(
            *(c.at[layer, rows, position].set(n[:, 0].astype(c.dtype)) for c, n in zip(cache, (k, v), strict=True))
        )
        valid = jnp.arange(cache.k.shape[2])[None, None] <= position[:, None, None]
        keys, values = (jax.lax.dynamic_index_in_dim(c, layer, keepdims=False).astype(x.dtype) for c in cache)
        x = x + self.attention.output(attention.cached_xla(q, keys, values, valid), None)
        return x + self.mlp(self.mlp_norm(x), None), cache


class Embed(nnx.Module):
    """Token embedding [V, D]."""

    def __init__(self, vocab_size: int, width: int, rngs: nnx.Rngs):
        self.embedding = nnx.Param(
            layers.INIT_STDDEV * jax.random.normal(rngs.params(), (vocab_size, width), jnp.float32)
        )


class Decoder(nnx.Module):
    """Embedding, stacked layers, last norm and head. Works on embeddings, so that pictures can be put in."""

    def __init__(self, config: model_config.TextConfig, lora: model_config.LoraConfig | None, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(config.vocab_size, config.width, rngs)
        self.layers = nnx.vmap(lambda r: Block(config, lora, r))(rngs.split(config.num_layers))
        self.norm = layers.RMSNorm(config.width, config.norm_eps)
        self.head = (
            None if config.tie_embeddings else layers.Linear(config.width, config.vocab_size, use_bias=False, rngs=rngs)
        )

    def embed_tokens(self, tokens: Int[Array, "B T"], dtype: jnp.dtype) -> Float[Array, "B T D"]:
        return self.embed.embedding.astype(dtype)[tokens]

    def head_kernel(self) -> Float[Array, "D V"]:
        """The output matrix, for a loss that applies it in chunks."""
        return self.embed.embedding[...].T if self.head is None else self.head.kernel[...]

    def logits(self, hidden: Float[Array, "*rows D"]) -> Float32[Array, "*rows V"]:
        """fp32 logits; products in hidden's dtype, summed in fp32."""
        return jnp.matmul(hidden, self.head_kernel().astype(hidden.dtype), preferred_element_type=jnp.float32)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        *,
        execution: Execution,
        dropout_key: DropoutKey = None,
        keep_cache: bool = False,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Hidden states after the last norm; with `keep_cache` also the keys and values of the T positions."""
        graph, stacked = nnx.split(self.layers)

        def body(h, scanned):
            index, weights = scanned
            key = _layer_key(dropout_key, index)
            h = ad_checkpoint.checkpoint_name(execution.rows(h), LAYER_INPUT)
            h, kv = nnx.merge(graph, weights)(h, positions, segment_ids, execution.self_attention, key)
            return h, kv if keep_cache else None

        if execution.remat != "none":
            body = jax.checkpoint(body, prevent_cse=False, policy=REMAT[execution.remat])
        x, kv = jax.lax.scan(body, x, (jnp.arange(self.config.num_layers), stacked), unroll=execution.unroll)
        return self.norm(x), Cache(*kv) if keep_cache else None

    def decode(
        self, x: Float[Array, "B 1 D"], position: Int[Array, " B"], cache: Cache, *, unroll: int = 1
    ) -> tuple[Float[Array, "B 1 D"], Cache]:
        """One new token a row. The cache is carried, not stacked anew, so that XLA updates it in place."""
        graph, stacked = nnx.split(self.layers)

        def body(carry, scanned):
            index, weights = scanned
            return nnx.merge(graph, weights).decode(carry[0], position, carry[1], index), None

        scanned = (jnp.arange(self.config.num_layers), stacked)
        (x, cache), _ = jax.lax.scan(body, (x, cache), scanned, unroll=unroll)
        return self.norm(x), cache
