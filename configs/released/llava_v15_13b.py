r"""LLaVA-v1.5-13B before any safety fine-tuning (liuhaotian/llava-v1.5-13b).

  python -m vlguard_jax.evaluate --config configs/released/llava_v15_13b.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llava_v15_13b

The paper, Table 2: unsafes 55.88, safe_unsafes 80.65 percent attack success.
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("liuhaotian/llava-v1.5-13b", "LLaVA-v1.5-13B", preset)
