r"""VLGuard alone on a finished LLaVA-v1.5-7B: the arm of the paper's Table 3 that refuses too much. All weights.

  python -m vlguard_jax.train --config configs/train/llava_v15_7b_vlguard_only.py --workdir runs/llava_v15_7b_vlguard_only \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train

As post-hoc, without the 5,000 helpful conversations: 3 epochs of 2,000, batch 128: 48 updates. A rehearsal with drawn pictures and a
small model is the same command with another --config.model.path; see BUILD.md.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.posthoc("liuhaotian/llava-v1.5-7b", lora=False, helpful="")
