"""LLaVA: tower, projector and decoder put together (reference: llava/model/llava_arch.py), and its functional form.

`Functional` is what the rest of the program sees: parameters are a nested dict of arrays, every call is a pure function
of it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int, UInt8

from vlguard_jax import types
from vlguard_jax.models import clip
from vlguard_jax.models import config as model_config
from vlguard_jax.models import llama
from vlguard_jax.models import projector

DTYPES = {"fp32": jnp.dtype("float32"), "bf16": jnp.dtype("bfloat16"), "fp16": jnp.dtype("float16")}

Params = dict[str, Any]


class Llava(nnx.Module):
    """Vision tower and projector are None in a plain language model."""

    def __init__(self, config: model_config.LlavaConfig, lora: model_config.LoraConfig | None, rngs: nnx.Rngs):
        self.vision = None if config.vision is None else clip.Tower(config.vision, rngs)
        widths = (config.vision.width, config.text.width) if config.vision else (0, 0)
        self.projector = None if config.projector is None else projector.Projector(config.projector, *widths, rngs)
        self.text = llama.Decoder(config.text, lora, rngs)

    def encode_images(self, images: UInt8[Array, "N S S 3"], dtype: jnp.dtype) -> Float[Array, "N P D"]:
        """Projected patch features. No gradient reaches the tower."""
        pixels = clip.normalize(images, self.vision.config).astype(dtype)
        return self.projector(jax.lax.stop_gradient(self.vision(pixels)))

    def embed(
        self,
        tokens: Int[Array, "B T"],
        images: UInt8[Array, "N S S 3"],
        image_slot: Int[Array, "B T"],
        dtype: jnp.dtype,
        execution: llama.Execution,
    ) -> Float[Array, "B T D"]:
        """Token embeddings with patch features where image_slot >= 0. N may be 0: then no tower runs."""
        x = self.text.embed_tokens(tokens, dtype)
        if self.vision is None or images.shape[0] == 0:
            return x
        return execution.put_pictures(self.encode_images(images, dtype), image_slot, x)


@dataclasses.dataclass(frozen=True)
class Functional:
    """Pure functions over a parameter tree, in one compute precision.

    In fp32 every matrix product is lowered at `highest` precision: the platforms' defaults round fp32 products to bf16
    or TF32.
    """

    config: model_config.LlavaConfig
    compute: str  # "fp32", "bf16" or "fp16"
    lora: model_config.LoraConfig | None = None
    execution: llama.Execution = llama.Execution()

    @functools.cached_property
    def _graph(self) -> Any:
        return nnx.split(nnx.eval_shape(lambda: Llava(self.config, self.lora, nnx.Rngs(0))))[0]

    def _model(self, params: Params) -> Llava:
        return nnx.merge(self._graph, params)

    @property
    def dtype(self) -> jnp.dtype:
        """Compute dtype."""
        return DTYPES[self.compute]

    def precision(self) -> Any:
        """Context that fixes the matmul precision of what is traced inside it."""
        return jax.default_matmul_precision("highest" if self.compute == "fp32" else "default")

    def init(self, seed: int) -> Params:
        """Random parameters, fp32: normal(0, 0.02) kernels, unit norms, adapters per models/lora.py."""
        return nnx.to_pure_dict(nnx.split(Llava(self.config, self.lora, nnx.Rngs(seed)))[1])

    def shapes(self) -> Params:
        """The parameter tree as ShapeDtypeStructs; nothing is allocated."""
        return nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: Llava(self.config, self.lora, nnx.Rngs(0))))[1])

    def encode_images(self, params: Params, images: UInt8[Array, "N S S 3"]) -> Float[Array, "N P D"]:
        """Projected patch features in the compute dtype."""
        with self.precision():
            return self._model(params).encode_images(images, self.dtype)

    def hidden(self, params: Params, batch: types.Batch, dropout_key: llama.DropoutKey = None) -> Float[Array, "B T D"]:
        """Hidden states after the last norm, for a loss that applies the head in chunks."""
        with self.precision():
            model = self._model(params)
            x = model.embed(batch.tokens, batch.images, batch.image_slot, self.dtype, self.execution)
            positions, segments = batch.positions, batch.segment_ids
            return model.text(x, positions, segments, execution=self.execution, dropout_key=dropout_key)[0]

    def head_kernel(self, params: Params) -> Float[Array, "D V"]:
        """The output matrix in the compute dtype."""
        return self._model(params).text.head_kernel().astype(self.dtype)

    def logits(self, params: Params, batch: types.Batch) -> Float32[Array, "B T V"]:
        """fp32 logits of every position."""
        with self.precision():
            return self._model(params).text.logits(self.hidden(params, batch))

    def prefill(
        self, params: Params, batch: types.Batch, last: Int[Array, " B"], cache_len: int
    ) -> tuple[Float32[Array, "B V"], llama.Cache]:
        """Read right-padded prompts: logits at each row's position `last`, and a cache of `cache_len` slots."""
        with self.precision():
            model = self._model(params)
            x = model.embed(batch.tokens, batch.images, batch.image_slot, self.dtype, self.execution)
            positions, segments = batch.positions, batch.segment_ids
            hidden, cache = model.text(x, positions, segments, execution=self.execution, keep_cache=True)
            room = [(0, 0), (0, 0), (0, cache_len - x.shape[1]), (0, 0), (0, 0)]
            at_last = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
            return model.text.logits(at_last), llama.Cache(*(jnp.pad(c, room) for c in cache))

    def decode(
        self, params: Params, token: Int[Array, " B"], position: Int[Array, " B"], cache: llama.Cache
    ) -> tuple[Float32[Array, "B V"], llama.Cache]:
        """One step: logits after `token`, which stands at `position` of its row."""
        with self.precision():
            model = self._model(params)
            x = model.text.embed_tokens(token[:, None], self.dtype)
            hidden, cache = model.text.decode(x, position, cache, unroll=self.execution.unroll)
            return model.text.logits(hidden[:, 0]), cache
