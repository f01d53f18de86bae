r"""Post-hoc with text-only safety data: the arm of the paper's Table 4 whose safety does not reach pictures. All weights.

  python -m vlguard_jax.train --config configs/train/llava_v15_7b_posthoc_text_safety.py --workdir runs/llava_v15_7b_posthoc_text_safety \
      --config.data.sources.text_safety.path=SAFETY.json \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES

SAFETY.json: a list of {"instruction", "input", "output"}, the paper's is that of Safety-Tuned LLaMAs (Bianchi et al. 2024).
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.posthoc("liuhaotian/llava-v1.5-7b", lora=False, safety="text_safety")
