r"""LLaVA-v1.5-13B fine-tuned with VLGuard in its mixture, LoRA (ys-zong/llava-v1.5-13b-Mixed-lora).

  python -m vlguard_jax.evaluate --config configs/released/llava_v15_13b_mixed_lora.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llava_v15_13b_mixed_lora

The paper, Table 2: unsafes 0.90, safe_unsafes 0.90 percent attack success.
The repository is reported to hold the merged weights, not adapters; either form loads (adapters need their base model).
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("ys-zong/llava-v1.5-13b-Mixed-lora", "LLaVA-v1.5-13B Mixed-LoRA", preset)
