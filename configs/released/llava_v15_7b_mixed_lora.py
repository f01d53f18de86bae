r"""LLaVA-v1.5-7B fine-tuned with VLGuard in its mixture, LoRA (ys-zong/llava-v1.5-7b-Mixed-lora).

  python -m vlguard_jax.evaluate --config configs/released/llava_v15_7b_mixed_lora.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llava_v15_7b_mixed_lora

The paper, Table 2: unsafes 0.00, safe_unsafes 1.25 percent attack success.
The repository is reported to hold the merged weights, not adapters; either form loads (adapters need their base model).
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("ys-zong/llava-v1.5-7b-Mixed-lora", "LLaVA-v1.5-7B Mixed-LoRA", preset)
