r"""SIUO, multiple choice: how often the safe one of four answers is chosen, 167 questions with a picture; no judging model.

  python -m vlguard_jax.evaluate --config configs/eval/siuo_mcq.py:released --config.model.path=MODEL \
      --config.benchmark.path=SIUO_DIR --workdir runs/siuo_mcq

SIUO_DIR holds data/siuo_mcqa.json and data/images (`python -m vlguard_jax.prepare siuo_mcq --source SIUO_DIR` checks them and says where they are
got). The four answers make long prompts (3,500 letters on average): `--config.benchmark.on_long_prompt=skip` leaves out, and counts, what does
not fit the model. Presets as in configs/eval/vlguard.py.
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    config = presets.benchmark("siuo_mcq", preset or "released")
    config.judges = ("choice_v1",)
    return config
