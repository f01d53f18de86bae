"""Published LLaVA-NeXT models by the names of their repositories, and how evaluations ask them."""

from __future__ import annotations

from vlguard_jax.families import family
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava_next import config as next_config

_DECODERS = {
    "llava-v1.6-vicuna-7b": configs.VICUNA_7B,
    "llava-v1.6-vicuna-13b": configs.VICUNA_13B,
    "llava-v1.6-mistral-7b": configs.MISTRAL_7B,
    "llama3-llava-next-8b": configs.LLAMA_3_8B,
}
PRESETS = {
    name: next_config.LlavaNextConfig(text, configs.CLIP_VIT_L_14_336, "mlp2x_gelu") for name, text in _DECODERS.items()
}
ASKING = {
    # As the models were published: LLaVA's prompt for each decoder, half precision.
    "llava_next": family.Asking("vicuna_v1", "anyres", "auto_fp16"),
    "llava_next_mistral": family.Asking("mistral_instruct", "anyres", "auto_fp16"),
    "llava_next_llama3": family.Asking("llava_llama_3", "anyres", "auto_fp16"),
}
