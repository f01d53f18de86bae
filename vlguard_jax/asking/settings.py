"""How `ask` asks where no --config is given, and the settings of each model that is asked.

An evaluation's settings; those of its benchmark and result files have no effect here.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from ml_collections import config_dict

from vlguard_jax import config as settings_lib
from vlguard_jax import errors

MODELS = 2  # side by side
JUDGES = ("keyword_vlguard_v1", "keyword_repaired")


def get_config(preset: str | None = None) -> config_dict.ConfigDict:
    """Each model as it was trained: its own template and preprocessing of pictures."""
    if preset:
        raise errors.UserError(
            f"--config: {errors.short(preset)} is a preset of no file; name one: configs/eval/vlguard.py:{preset}"
        )
    config = settings_lib.base_eval_config()
    config.judges = JUDGES
    return config


def of_each(config: settings_lib.EvalConfig, paths: Sequence[str]) -> list[settings_lib.EvalConfig]:
    """The settings of each model. paths: where they are; none: the config's own.

    Raises:
      UserError: no model is named, or too many.
    """
    if len(paths) > MODELS:
        raise errors.UserError(
            f"{len(paths)} models are named, and {MODELS} can be asked side by side; a text with spaces is quoted"
        )
    named = list(paths) or [config.model.path]
    if not named[0]:
        raise errors.UserError("name a model's folder or hub id: vlguard ask MODEL [MODEL]")
    return [_of(config, path) for path in named]


def _of(config: settings_lib.EvalConfig, path: str) -> settings_lib.EvalConfig:
    """The base of adapters may stand beside them, and then it has none."""
    base = "" if path == config.model.base else config.model.base
    return dataclasses.replace(config, model=dataclasses.replace(config.model, path=path, base=base))
