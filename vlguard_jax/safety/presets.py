"""Ways to ask a model, and the published checkpoints to ask, as evaluation configs."""

from __future__ import annotations

from ml_collections import config_dict

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.families import table


def vlguard(preset: str) -> config_dict.ConfigDict:
    """VLGuard's three test subsets, asked as `preset` says: greedily, 1 to 256 new tokens (paper appendix A.1; VLGuard
    utils/model_utils.py:8-33).

    Raises:
      UserError: unknown preset; the nearest known one is named.
    """
    if preset not in table.ASKING:
        raise errors.UserError(f"preset {preset!r} is unknown{errors.nearest(preset, table.ASKING)}")
    config = settings_lib.base_eval_config()
    config.preset = preset
    config.model.template, config.model.image_mode, config.precision.compute = table.ASKING[preset]
    config.decode.max_new_tokens = 256
    config.decode.min_new_tokens = 1
    return config


def benchmark(name: str, preset: str) -> config_dict.ConfigDict:
    """The benchmark `name`, asked as `preset` says and as VLGuard's test subsets are; raises as `vlguard`."""
    config = vlguard(preset)
    config.benchmark.name = name
    return config


def checkpoint(path: str, paper_row: str, preset: str | None, *, default: str = "released") -> config_dict.ConfigDict:
    """A published checkpoint beside its row of the paper's tables ("" where it has none), asked as `preset` says, or
    as `default`."""
    config = vlguard(preset or default)
    config.model.path = path
    config.paper_row = paper_row
    return config
