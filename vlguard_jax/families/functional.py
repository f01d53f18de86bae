"""A model of any family as pure functions of its parameters, which the rest of the program computes with.

Parameters are a nested dict of arrays; no other code knows that the networks are Flax NNX.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int, Key

from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import cache as cache_lib
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import execution as execution_lib
from vlguard_jax.families.blocks import lora

DTYPES = {"fp32": jnp.dtype("float32"), "bf16": jnp.dtype("bfloat16"), "fp16": jnp.dtype("float16")}

Params = dict[str, Any]


def with_layers(params: Params, layers: Params) -> Params:
    """Parameters with the decoder's layers one by one, {0: layer, 1: ...}, in place of its stack: what
    `Model.read` and `Model.extend` take. layers: the tree of a layer, with a list of all layers' arrays at each
    leaf."""
    lists = jax.tree.leaves(layers, is_leaf=lambda x: isinstance(x, list))
    one_by_one = {
        i: jax.tree.map(lambda parts, i=i: parts[i], layers, is_leaf=lambda x: isinstance(x, list))
        for i in range(len(lists[0]) if lists else 0)
    }
    return {**params, "text": {**params["text"], "layers": one_by_one}}


@dataclasses.dataclass(frozen=True)
class Model:
    """Pure functions over a parameter tree, in one compute precision.

    In fp32 every matrix product is lowered at `highest` precision: the platforms' defaults round fp32 products to bf16
    or TF32.
    """

    config: family.Config
    compute: str  # "fp32", "bf16" or "fp16"
    lora: configs.LoraConfig | None = None
    execution: execution_lib.Execution = execution_lib.Execution()

    def _network(self, seed: int) -> nnx.Module:
        return table.of(self.config).network(self.config, self.lora, nnx.Rngs(seed))

    @functools.cached_property
    def _graph(self) -> Any:
        return nnx.split(nnx.eval_shape(lambda: self._network(0)))[0]

    @functools.cached_property
    def _split_graph(self) -> Any:
        def network() -> nnx.Module:
            made: Any = self._network(0)
            made.text.split()
            return made

        return nnx.split(nnx.eval_shape(network))[0]

    def _merged(self, params: Params) -> Any:
        return nnx.merge(self._graph, params)

    def _split(self, params: Params) -> Any:
        return nnx.merge(self._split_graph, params)

    @property
    def dtype(self) -> jnp.dtype:
        """Compute dtype."""
        return DTYPES[self.compute]

    def precision(self) -> Any:
        """Context that sets the matmul precision of everything traced in it."""
        return jax.default_matmul_precision("highest" if self.compute == "fp32" else "default")

    def init(self, seed: int) -> Params:
        """Random parameters, fp32: normal(0, 0.02) kernels, unit norms, adapters per blocks/lora.py."""
        return nnx.to_pure_dict(nnx.split(self._network(seed))[1])

    def shapes(self) -> Params:
        """The parameter tree as ShapeDtypeStructs; nothing is allocated."""
        return nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: self._network(0)))[1])

    def features(self, params: Params, pictures: types.Pictures) -> Float[Array, "S D"]:
        """The features that a batch's pictures put into its slots, in the compute dtype."""
        with self.precision():
            return self._merged(params).features(pictures, self.dtype, self.execution)

    def _embedded(self, network: Any, batch: types.Batch) -> Float[Array, "B T D"]:
        """Token embeddings with the pictures' features where slot >= 0. Without pictures the tower does not run."""
        if not any(array.shape[0] for array in batch.pictures.values()):
            return self._texts(network, batch.tokens, None, None)
        features = network.features(batch.pictures, self.dtype, self.execution)
        return self._texts(network, batch.tokens, features, batch.slot)

    def _texts(self, network: Any, tokens: Array, features: Array | None, slot: Array | None) -> Float[Array, "B T D"]:
        x = network.text.embed_tokens(tokens, self.dtype)
        return x if features is None else self.execution.put_pictures(features, slot, x)

    def hidden(
        self, params: Params, batch: types.Batch, dropout_key: Key[Array, ""] | None = None
    ) -> Float[Array, "B T D"]:
        """Hidden states after the last norm, for a loss that applies the head in chunks. dropout_key: of the step."""
        with self.precision():
            network = self._merged(params)
            x = self._embedded(network, batch)
            positions, segments = batch.positions, batch.segment_ids
            drawn = None if dropout_key is None else lora.dropout(dropout_key, segments)
            return network.text(x, positions, segments, execution=self.execution, drawn=drawn)

    def head_kernel(self, params: Params) -> Float[Array, "D V"]:
        """The output matrix in the compute dtype."""
        return self._merged(params).text.head_kernel().astype(self.dtype)

    def logits(self, params: Params, batch: types.Batch) -> Float32[Array, "B T V"]:
        """fp32 logits of every position."""
        with self.precision():
            return self._merged(params).text.logits(self.hidden(params, batch))

    def seen(self, params: Params, pictures: types.Pictures) -> Float[Array, "S D"]:
        """`features`, of parameters with the layers split (`with_layers`), as for all that follows."""
        with self.precision():
            return self._split(params).features(pictures, self.dtype, self.execution)

    def read(
        self,
        params: Params,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        features: Float[Array, "S D"] | None = None,
        slot: Int[Array, "B T"] | None = None,
        *,
        int8: bool = False,
    ) -> tuple[Float[Array, "B T D"], cache_lib.Cache]:
        """Hidden states of the beginnings of B right-padded texts, and their cache, T places a row. features: of
        pictures, put where slot >= 0. int8: the format of the cache."""
        with self.precision():
            network = self._split(params)
            x = self._texts(network, tokens, features, slot)
            return network.text.read(x, positions, segment_ids, execution=self.execution, int8=int8)

    def extend(
        self,
        params: Params,
        tokens: Int[Array, "B C"],
        positions: Int[Array, "B C"],
        at: Int[Array, " B"],
        cache: cache_lib.Cache,
        features: Float[Array, "S D"] | None = None,
        slot: Int[Array, "B C"] | None = None,
    ) -> tuple[Float[Array, "B C D"], cache_lib.Cache]:
        """Hidden states of C more tokens per row, whose rotary positions are `positions` and whose places in the cache
        are `at` and after; each sees the places up to its own. features: as for `read`."""
        with self.precision():
            network = self._split(params)
            x = self._texts(network, tokens, features, slot)
            return network.text.extend(x, positions, at, cache, execution=self.execution)

    def scores(self, params: Params, hidden: Float[Array, "*rows D"]) -> Float32[Array, "*rows V"]:
        """fp32 logits of hidden states."""
        with self.precision():
            return self._split(params).text.logits(hidden)

    def decode(
        self,
        params: Params,
        token: Int[Array, " B"],
        position: Int[Array, " B"],
        at: Int[Array, " B"],
        cache: cache_lib.Cache,
    ) -> tuple[Float32[Array, "B V"], cache_lib.Cache]:
        """One decode step: logits after `token`, whose rotary position is `position` and whose place in the cache is
        `at`."""
        hidden, cache = self.extend(params, token[:, None], position[:, None], at, cache)
        return self.scores(params, hidden[:, 0]), cache
