"""Ways to ask a model, and the published checkpoints to ask, as evaluation configs."""

from __future__ import annotations

from ml_collections import config_dict

from vlguard_jax import config as settings_lib
from vlguard_jax import errors

# Both decode greedily, 1 to 256 new tokens (paper appendix A.1; VLGuard utils/model_utils.py:8-33).
PRESETS = {
    # VLGuard's released script: another word in the system prompt than in training, pictures cropped, half precision.
    "released": {"template": "llava_v1", "image_mode": "crop", "compute": "auto_fp16"},
    # As LLaVA-v1.5 and VLGuard train: the training prompt, pictures padded to a square.
    "llava": {"template": "vicuna_v1", "image_mode": "pad", "compute": "auto_bf16"},
}


def vlguard(preset: str) -> config_dict.ConfigDict:
    """VLGuard's three test subsets, asked as `preset` says.

    Raises:
      UserError: unknown preset; the nearest known one is named.
    """
    if preset not in PRESETS:
        raise errors.UserError(f"preset {preset!r} is unknown{errors.nearest(preset, PRESETS)}")
    chosen = PRESETS[preset]
    config = settings_lib.base_eval_config()
    config.preset = preset
    config.model.template = chosen["template"]
    config.model.image_mode = chosen["image_mode"]
    config.precision.compute = chosen["compute"]
    config.decode.max_new_tokens = 256
    config.decode.min_new_tokens = 1
    return config


def checkpoint(path: str, paper_row: str, preset: str | None) -> config_dict.ConfigDict:
    """A published checkpoint beside its row of the paper's Table 2 ("" where it has none); preset "released" by
    default."""
    config = vlguard(preset or "released")
    config.model.path = path
    config.paper_row = paper_row
    return config
