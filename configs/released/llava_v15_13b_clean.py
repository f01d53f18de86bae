r"""LLaVA-v1.5-13B retrained without the 247 flagged samples, all weights (ys-zong/llava-v1.5-13b-Clean).

  python -m vlguard_jax.evaluate --config configs/released/llava_v15_13b_clean.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llava_v15_13b_clean

The paper has no VLGuard row for it (Table 1 measures it on text only), so there is nothing to compare with.
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("ys-zong/llava-v1.5-13b-Clean", "", preset)
