"""Published LLaVA-NeXT models on Vicuna, and how evaluations ask them."""

from __future__ import annotations

from vlguard_jax.families import family
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava_next import config as next_config

PRESETS = {
    f"llava-v1.6-vicuna-{size}": next_config.LlavaNextConfig(text, configs.CLIP_VIT_L_14_336, "mlp2x_gelu")
    for size, text in (("7b", configs.VICUNA_7B), ("13b", configs.VICUNA_13B))
}
ASKING = {
    # As the models were published: LLaVA's prompt for Vicuna, half precision.
    "llava_next": family.Asking("vicuna_v1", "anyres", "auto_fp16"),
}
