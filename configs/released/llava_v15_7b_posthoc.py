r"""LLaVA-v1.5-7B fine-tuned on VLGuard afterwards, all weights (ys-zong/llava-v1.5-7b-Posthoc).

  python -m vlguard_jax.evaluate --config configs/released/llava_v15_7b_posthoc.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llava_v15_7b_posthoc

The paper, Table 2: unsafes 0.23, safe_unsafes 0.90 percent attack success.
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("ys-zong/llava-v1.5-7b-Posthoc", "LLaVA-v1.5-7B Post-hoc", preset)
