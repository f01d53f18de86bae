"""A language model by itself (reference: transformers models/llama/modeling_llama.py)."""

from __future__ import annotations

from flax import nnx

from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import decoder
from vlguard_jax.families.llama import config as llama_config


class Llama(nnx.Module):
    """The decoder under the id that it has in every family."""

    def __init__(self, config: llama_config.LlamaConfig, lora: configs.LoraConfig | None, rngs: nnx.Rngs):
        self.text = decoder.Decoder(config.text, lora, rngs)
