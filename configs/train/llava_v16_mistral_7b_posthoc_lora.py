r"""Post-hoc: a finished LLaVA-NeXT (v1.6-mistral-7b) repaired with VLGuard and 5,000 helpful conversations, LoRA
adapters on the decoder, the projector in full.

  python -m vlguard_jax.train --config configs/train/llava_v16_mistral_7b_posthoc_lora.py \
      --workdir runs/llava_v16_mistral_7b_posthoc_lora \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES

The paper's hyperparameters for LLaVA-1.5 (it tuned no LLaVA-NeXT); pictures are seen in tiles, 2 to 5 each, so that a
conversation takes up to 4,096 tokens. What a run would read: `prepare index`, `prepare inspect` with this --config.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.posthoc("liuhaotian/llava-v1.6-mistral-7b", lora=True)
