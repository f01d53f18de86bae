r"""VLGuard alone on a finished LLaVA-v1.5-7B, LoRA (rank 128, alpha 256; projector in full).

  python -m vlguard_jax.train --config configs/train/llava_v15_7b_vlguard_only_lora.py --workdir runs/llava_v15_7b_vlguard_only_lora \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train

Learning rate 2e-4, projector 2e-5; 3 epochs of 2,000 conversations, batch 128: 48 updates.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.posthoc("liuhaotian/llava-v1.5-7b", lora=True, helpful="")
