"""Published LLaVA-1.5 models, and how evaluations ask them."""

from __future__ import annotations

from vlguard_jax.families import family
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config

PRESETS = {
    "llava-v1.5-7b": llava_config.LlavaConfig(configs.VICUNA_7B, configs.CLIP_VIT_L_14_336, "mlp2x_gelu"),
    "llava-v1.5-13b": llava_config.LlavaConfig(configs.VICUNA_13B, configs.CLIP_VIT_L_14_336, "mlp2x_gelu"),
}
ASKING = {
    # VLGuard's released script: another word in the system prompt than in training, pictures cropped, half precision.
    "released": family.Asking("llava_v1", "crop", "auto_fp16"),
    # As LLaVA-v1.5 and VLGuard train: the training prompt, pictures padded to a square.
    "llava": family.Asking("vicuna_v1", "pad", "auto_bf16"),
}
