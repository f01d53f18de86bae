r"""LLaVA-NeXT (v1.6-mistral-7b) before any safety fine-tuning (liuhaotian/llava-v1.6-mistral-7b).

  python -m vlguard_jax.evaluate --config configs/released/llava_v16_mistral_7b.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llava_v16_mistral_7b

Asked with Mistral's template, pictures in tiles. The paper has no row for it.
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("liuhaotian/llava-v1.6-mistral-7b", "", preset, default="llava_next_mistral")
