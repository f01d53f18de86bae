"""Published LLaVA-1.5 models."""

from __future__ import annotations

from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config

PRESETS = {
    "llava-v1.5-7b": llava_config.LlavaConfig(configs.VICUNA_7B, configs.CLIP_VIT_L_14_336, "mlp2x_gelu"),
    "llava-v1.5-13b": llava_config.LlavaConfig(configs.VICUNA_13B, configs.CLIP_VIT_L_14_336, "mlp2x_gelu"),
}
