r"""XSTest: refusals of 250 harmless prompts that sound harmful, attack success of 200 that are.

  python -m vlguard_jax.evaluate --config configs/eval/xstest.py:released --config.model.path=MODEL \
      --config.benchmark.path=XSTEST_DIR --workdir runs/xstest

XSTEST_DIR holds xstest_prompts.csv (`python -m vlguard_jax.prepare xstest --source XSTEST_DIR` checks it and says where it is got). Asked
without a picture, as in the paper, whose column "XSTest safe" is the share that is not refused: 100 minus the refusal rate.
Presets as in configs/eval/vlguard.py, and `language`, which asks a language model by the chat template that lies with it (bf16).
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    return presets.benchmark("xstest", preset or "released")
