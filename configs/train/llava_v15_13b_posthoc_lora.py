r"""Post-hoc: a finished LLaVA-v1.5-13B repaired with VLGuard and 5,000 helpful conversations, LoRA (rank 128, alpha 256; projector in full).

  python -m vlguard_jax.train --config configs/train/llava_v15_13b_posthoc_lora.py --workdir runs/llava_v15_13b_posthoc_lora \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES

The paper's hyperparameters: learning rate 2e-4, projector 2e-5, 3 epochs of 7,000 conversations, batch 128: 165 updates. Fewer conversations at
a time on each device: --config.run.rows=N (a divisor of 128); the result is the same.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.posthoc("liuhaotian/llava-v1.5-13b", lora=True)
