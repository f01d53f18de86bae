r"""LLaVA-v1.5-13B retrained without the 247 flagged samples, LoRA (ys-zong/llava-v1.5-13b-Clean-lora).

  python -m vlguard_jax.evaluate --config configs/released/llava_v15_13b_clean_lora.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llava_v15_13b_clean_lora

The paper has no VLGuard row for it (Table 1 measures it on text only), so there is nothing to compare with.
The repository is reported to hold the merged weights, not adapters; either form loads (adapters need their base model).
The link in VLGuard's README leads to liuhaotian/llava-v1.6-34b by mistake; this is the id that it prints.
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("ys-zong/llava-v1.5-13b-Clean-lora", "", preset)
