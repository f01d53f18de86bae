r"""MM-SafetyBench: attack success of 1,680 questions with pictures of three kinds, and without.

  python -m vlguard_jax.evaluate --config configs/eval/mm_safetybench.py:released --config.model.path=MODEL \
      --config.benchmark.path=MMSB_DIR --workdir runs/mm_safetybench

MMSB_DIR is what `python -m vlguard_jax.prepare mm_safetybench --source DOWNLOAD --out MMSB_DIR` makes of the Parquet files of the hub's
PKU-Alignment/MM-SafetyBench. Subsets: mm_sd, mm_typo, mm_sd_typo, mm_text. VLMEvalKit's MMSafetyBench.tsv: prepare and ask it as
mm_safetybench_vlmevalkit (`--config.benchmark.name=mm_safetybench_vlmevalkit`). Its authors judge with GPT-4, five scenarios by rules of their
own; rates by string match are not theirs. Presets as in configs/eval/vlguard.py.
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    return presets.benchmark("mm_safetybench", preset or "released")
