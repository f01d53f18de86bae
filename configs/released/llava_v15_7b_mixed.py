r"""LLaVA-v1.5-7B fine-tuned with VLGuard in its mixture, all weights (ys-zong/llava-v1.5-7b-Mixed).

  python -m vlguard_jax.evaluate --config configs/released/llava_v15_7b_mixed.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llava_v15_7b_mixed

The paper, Table 2: unsafes 0.90, safe_unsafes 0.90 percent attack success.
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("ys-zong/llava-v1.5-7b-Mixed", "LLaVA-v1.5-7B Mixed", preset)
