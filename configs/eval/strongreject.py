r"""StrongREJECT: attack success of 313 forbidden prompts.

  python -m vlguard_jax.evaluate --config configs/eval/strongreject.py:released --config.model.path=MODEL \
      --config.benchmark.path=STRONGREJECT_DIR --workdir runs/strongreject

STRONGREJECT_DIR holds strongreject_dataset.csv (`python -m vlguard_jax.prepare strongreject --source STRONGREJECT_DIR` checks it and says where
it is got). The small set of 60, strongreject_small_dataset.csv: `--config.benchmark.name=strongreject_small`. Asked without a picture.
Presets as in configs/eval/vlguard.py, and `language`, which asks a language model by the chat template that lies with it (bf16).
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    return presets.benchmark("strongreject", preset or "released")
