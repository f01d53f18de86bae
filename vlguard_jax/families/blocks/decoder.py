"""Llama-family decoder (reference: transformers models/llama/modeling_llama.py).

RMSNorm, rotary embedding (half-split), grouped-query attention, SwiGLU, no biases. Layers are stacked on a leading axis
and scanned; for generation they are split, one after another, so that a step reads every weight where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

from flax import nnx
import jax
from jax import Array
from jax import ad_checkpoint
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int

from vlguard_jax.families.blocks import attention
from vlguard_jax.families.blocks import cache as cache_lib
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import execution as execution_lib
from vlguard_jax.families.blocks import layers
from vlguard_jax.families.blocks import lora as lora_lib


def inverse_frequencies(config: configs.TextConfig) -> Float32[Array, " half"]:
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


def _linear(in_width: int, out_width: int, name: str, lora: configs.LoraConfig | None, rngs: nnx.Rngs) -> layers.Linear:
    adapter = lora if lora is not None and name in lora.targets else None
    return layers.Linear(in_width, out_width, use_bias=False, adapter=adapter, rngs=rngs)


def _folded(drawn: lora_lib.Dropout | None, index: int | Int[Array, ""]) -> lora_lib.Dropout | None:
    return None if drawn is None else drawn.folded(index)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: configs.TextConfig, lora: configs.LoraConfig | None, rngs: nnx.Rngs):
        self.config = config
        inner, kv = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
        self.q_proj = _linear(config.width, inner, "q_proj", lora, rngs)
        self.k_proj = _linear(config.width, kv, "k_proj", lora, rngs)
        self.v_proj = _linear(config.width, kv, "v_proj", lora, rngs)
        self.o_proj = _linear(inner, config.width, "o_proj", lora, rngs)

    def project(
        self, x: Float[Array, "B T D"], positions: Int[Array, "B T"], drawn: lora_lib.Dropout | None
    ) -> tuple[Float[Array, "B T H E"], Float[Array, "B T K E"], Float[Array, "B T K E"]]:
        """Rotated queries and keys, and values."""
        inverse = inverse_frequencies(self.config)
        flat = [proj(x, _folded(drawn, i)) for i, proj in enumerate((self.q_proj, self.k_proj, self.v_proj))]
        if x.shape[1] == 1:  # or XLA for TPUs moves the split into heads to the weight of v, and copies it every step
            flat = jax.lax.optimization_barrier(flat)
        q, k, v = (one.reshape(*x.shape[:2], -1, self.config.head_width) for one in flat)
        return rotate(q, positions, inverse), rotate(k, positions, inverse), v

    def output(self, heads: Float[Array, "B T H E"], drawn: lora_lib.Dropout | None) -> Float[Array, "B T D"]:
        return self.o_proj(heads.reshape(*heads.shape[:2], -1), _folded(drawn, 3))


class Mlp(nnx.Module):
    """SwiGLU."""

    def __init__(self, config: configs.TextConfig, lora: configs.LoraConfig | None, rngs: nnx.Rngs):
        self.gate_proj = _linear(config.width, config.mlp_width, "gate_proj", lora, rngs)
        self.up_proj = _linear(config.width, config.mlp_width, "up_proj", lora, rngs)
        self.down_proj = _linear(config.mlp_width, config.width, "down_proj", lora, rngs)

    def __call__(self, x: Float[Array, "B T D"], drawn: lora_lib.Dropout | None) -> Float[Array, "B T D"]:
        hidden = jax.nn.silu(self.gate_proj(x, _folded(drawn, 4))) * self.up_proj(x, _folded(drawn, 5))
        return self.down_proj(hidden, _folded(drawn, 6))


class Block(nnx.Module):
    """One decoder layer."""

    def __init__(self, config: configs.TextConfig, lora: configs.LoraConfig | None, rngs: nnx.Rngs):
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
        drawn: lora_lib.Dropout | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array]]:
        """One layer over whole rows; also returns its keys and values [B, T, K, E]."""
        q, k, v = self.attention.project(self.attention_norm(x), positions, drawn)
        x = x + self.attention.output(self_attention(q, k, v, segment_ids), drawn)
        return x + self.mlp(self.mlp_norm(x), drawn), (k, v)

    def extend(
        self,
        x: Float[Array, "B C D"],
        positions: Int[Array, "B C"],
        at: Int[Array, " B"],
        cache: cache_lib.LayerCache,
    ) -> tuple[Float[Array, "B C D"], cache_lib.LayerCache]:
        """One layer for C more tokens per row, which are written to the cache at places `at` and after; each attends to
        the places up to its own."""
        q, k, v = self.attention.project(self.attention_norm(x), positions, None)
        new = cache_lib.of(k, v, int8=cache.k_scale is not None)
        cache = cache_lib.written(cache, new, at)
        own = at[:, None] + jnp.arange(x.shape[1])
        seen = jnp.arange(cache.length) <= own[:, :, None]
        x = x + self.attention.output(cache_lib.attend(q, cache, seen), None)
        return x + self.mlp(self.mlp_norm(x), None), cache


class Embed(nnx.Module):
    """Token embedding [V, D]."""

    def __init__(self, vocab_size: int, width: int, rngs: nnx.Rngs):
        self.embedding = nnx.Param(
            layers.INIT_STDDEV * jax.random.normal(rngs.params(), (vocab_size, width), jnp.float32)
        )


class Decoder(nnx.Module):
    """Embedding, stacked layers, last norm and head. Takes embeddings, so that pictures can be inserted."""

    def __init__(self, config: configs.TextConfig, lora: configs.LoraConfig | None, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(config.vocab_size, config.width, rngs)
        self.layers: Any = nnx.vmap(lambda r: Block(config, lora, r))(rngs.split(config.num_layers))
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
        execution: execution_lib.Execution,
        drawn: lora_lib.Dropout | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states after the last norm."""
        graph, stacked = nnx.split(self.layers)

        def body(h, scanned):
            index, weights = scanned
            own = _folded(drawn, index)
            h = ad_checkpoint.checkpoint_name(execution.constrain_rows(h), execution_lib.LAYER_INPUT)
            return nnx.merge(graph, weights)(h, positions, segment_ids, execution.self_attention, own)[0], None

        if execution.remat != "none":
            body = jax.checkpoint(body, prevent_cse=False, policy=execution_lib.REMAT[execution.remat])
        x, _ = jax.lax.scan(body, x, (jnp.arange(self.config.num_layers), stacked), unroll=execution.unroll)
        return self.norm(x)

    def split(self) -> None:
        """Replace the stack by a list of its layers, as `read` and `extend` take it: their weights and the cache are
        read where they lie; an index into a stack would copy them first."""
        graph, stacked = nnx.split(self.layers)
        layers = range(self.config.num_layers)
        self.layers = nnx.List([nnx.merge(graph, jax.tree.map(lambda x, i=i: x[i], stacked)) for i in layers])

    def _each(self, x: Array, execution: execution_lib.Execution, step: Callable[[Any, Array, int], Any]) -> Array:
        """`step(layer, x, index)` -> x for every layer of a split decoder, and the last norm.

        Where several tokens of a row are read and weights are gathered, those of a layer are so no earlier than the
        layer before it begins; for one token XLA decides whether weights or activations move.
        """
        parts, several = [nnx.split(layer) for layer in self.layers], x.shape[1] > 1
        for i, (graph, weights) in enumerate(parts):
            if execution.gathered and several and i + 1 < len(parts):
                following, ahead = parts[i + 1]
                x, ahead = jax.lax.optimization_barrier((x, ahead))
                parts[i + 1] = following, ahead
            x = step(nnx.merge(graph, weights), execution.constrain_rows(x) if several else x, i)
        return self.norm(x)

    def read(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        *,
        execution: execution_lib.Execution,
        int8: bool,
    ) -> tuple[Float[Array, "B T D"], cache_lib.Cache]:
        """Hidden states after the last norm, and the cache of these T tokens. Of a split decoder."""
        cache = []

        def step(layer: Block, x: Array, _: int) -> Array:
            x, (k, v) = layer(x, positions, segment_ids, execution.self_attention)
            cache.append(cache_lib.of(k, v, int8=int8))
            return x

        return self._each(x, execution, step), tuple(cache)

    def extend(
        self,
        x: Float[Array, "B C D"],
        positions: Int[Array, "B C"],
        at: Int[Array, " B"],
        cache: cache_lib.Cache,
        *,
        execution: execution_lib.Execution,
    ) -> tuple[Float[Array, "B C D"], cache_lib.Cache]:
        """Hidden states of C more tokens per row, and the cache with them at places `at` and after. Of a split
        decoder."""
        written = list(cache)

        def step(layer: Block, x: Array, i: int) -> Array:
            x, written[i] = layer.extend(x, positions, at, written[i])
            return x

        return self._each(x, execution, step), tuple(written)
