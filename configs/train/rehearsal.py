r"""Rehearsal: VLGuard alone on a small LLaVA folder, on a CPU, with pictures drawn by `prepare`. Argument: `full` (default) or `lora`.

  python -m vlguard_jax.prepare vlguard --metadata METADATA --out data/vlguard --stand_in_images
  python -m vlguard_jax.train --config configs/train/rehearsal.py:lora --workdir runs/rehearsal_lora --config.model.path=MODEL

METADATA holds VLGuard's train.json and test.json (github.com/ys-zong/VLGuard, data/); MODEL is any small LLaVA folder, for instance
runs/quickstart/base/model after `make quickstart`. All 2,000 conversations, 3 epochs of 128 a step as in the paper: 48 updates. The learning
rate is a small model's (1e-3), and everything is fp32. What comes out is marked as a rehearsal.
"""

from vlguard_jax import errors
from vlguard_jax.training import recipes


def get_config(kind="full"):
    if kind not in ("full", "lora"):
        raise errors.UserError(f"configs/train/rehearsal.py:{kind} is unknown{errors.nearest(kind, ('full', 'lora'))}")
    config = recipes.posthoc("", lora=kind == "lora", helpful="")
    config.precision.compute = config.precision.params = config.precision.frozen = "fp32"
    config.data.sources.vlguard.path = "data/vlguard"
    config.data.sources.vlguard.images = "data/vlguard/train"
    config.data.mode, config.data.length_multiple = "pad", 64
    config.optimizer.learning_rate = 1e-3
    config.optimizer.projector_learning_rate = 1e-4 if kind == "lora" else 0.0
    config.run.rows = 16
    return config
