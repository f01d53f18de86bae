r"""Post-hoc: a finished LLaVA-NeXT (Llama-3-8B) repaired with VLGuard and 5,000 helpful conversations, all weights
of decoder and projector.

  python -m vlguard_jax.train --config configs/train/llama3_llava_next_8b_posthoc.py \
      --workdir runs/llama3_llava_next_8b_posthoc \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES

The paper's hyperparameters for LLaVA-1.5 (it tuned no LLaVA-NeXT); pictures are seen in tiles, 2 to 5 each, so that a
conversation takes up to 4,096 tokens. What a run would read: `prepare index`, `prepare inspect` with this --config.
Made for v5e:4x8; on more chips --config.run.rows=0 takes a step at once, with the same result.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.posthoc("lmms-lab/llama3-llava-next-8b", lora=False, rows=32)
