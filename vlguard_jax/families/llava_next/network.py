"""LLaVA-NeXT: LLaVA-1.5 over tiles, with a learned vector after each row of a picture's feature map (reference:
transformers models/llava_next/modeling_llava_next.py)."""

from __future__ import annotations

from flax import nnx
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Int

from vlguard_jax import types
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import execution as execution_lib
from vlguard_jax.families.llava import network
from vlguard_jax.families.llava_next import config as next_config


class LlavaNext(network.Llava):
    """A picture is several units of the tower, and takes as many features as tiles.py lays out.

    `image_newline` [D] is drawn as in LLaVA (llava/model/llava_arch.py): normal, 1/sqrt(D).
    """

    def __init__(self, config: next_config.LlavaNextConfig, lora: configs.LoraConfig | None, rngs: nnx.Rngs):
        super().__init__(config, lora, rngs)
        width = config.text.width
        self.image_newline = nnx.Param(jax.random.normal(rngs.params(), (width,), jnp.float32) / width**0.5)

    def features(
        self, pictures: types.Pictures, dtype: jnp.dtype, execution: execution_lib.Execution
    ) -> Float[Array, "S D"]:
        """For each slot, its projected feature or the newline. No gradient reaches the tower.

        pictures: "images" u8[N, S, S, 3], and "rows" i32[S], indices into a row shard's N P features and one newline.
        """
        projected = super().features(pictures, dtype, execution)
        newline = jnp.asarray(self.image_newline[...], dtype)
        return execution.by_rows(_placed, newline, projected, pictures["rows"])


def _placed(newline: Float[Array, " D"], features: Float[Array, "F D"], rows: Int[Array, " S"]) -> Float[Array, "S D"]:
    """The features at these rows; the row after the last is the newline."""
    return jnp.concatenate([features, newline[None]])[rows]
