"""LLaVA-1.5: tower, projector and decoder combined (reference: llava/model/llava_arch.py)."""

from __future__ import annotations

from flax import nnx
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float

from vlguard_jax import types
from vlguard_jax.families.blocks import clip
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import decoder
from vlguard_jax.families.blocks import execution as execution_lib
from vlguard_jax.families.blocks import projector
from vlguard_jax.families.llava import config as llava_config


class Llava(nnx.Module):
    """One picture is one unit of the tower, and as many features as the tower has patches."""

    def __init__(self, config: llava_config.LlavaConfig, lora: configs.LoraConfig | None, rngs: nnx.Rngs):
        self.vision = clip.Tower(config.vision, rngs)
        self.projector = projector.Projector(config.projector, config.vision.width, config.text.width, rngs)
        self.text = decoder.Decoder(config.text, lora, rngs)

    def features(
        self, pictures: types.Pictures, dtype: jnp.dtype, execution: execution_lib.Execution
    ) -> Float[Array, "S D"]:
        """Projected patch features of pictures u8[N, S, S, 3], concatenated. No gradient reaches the tower."""
        pixels = clip.normalize(pictures["images"], self.vision.config).astype(dtype)
        features = self.projector(jax.lax.stop_gradient(self.vision(pixels)))
        return features.reshape(-1, features.shape[-1])
