r"""LLaVA-NeXT (Llama-3-8B) before any safety fine-tuning (lmms-lab/llama3-llava-next-8b).

  python -m vlguard_jax.evaluate --config configs/released/llama3_llava_next_8b.py \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/llama3_llava_next_8b

Asked with Llama 3's template, pictures in tiles. The paper has no row for it.
"""

from vlguard_jax.safety import presets


def get_config(preset=None):
    return presets.checkpoint("lmms-lab/llama3-llava-next-8b", "", preset, default="llava_next_llama3")
