r"""LLaVA-v1.5-7B before any safety fine-tuning (liuhaotian/llava-v1.5-7b).

  python -m vlguard_jax.evaluate --config configs/released/llava_v15_7b.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llava_v15_7b

The paper, Table 2: unsafes 72.62, safe_unsafes 87.46 percent attack success.
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("liuhaotian/llava-v1.5-7b", "LLaVA-v1.5-7B", preset)
