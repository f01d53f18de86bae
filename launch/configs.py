"""Checks the configs that a launch file names before a machine is paid for: the file, its argument, every overridden setting."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

from launch import spec as spec_lib
from vlguard_jax import config as settings_lib
from vlguard_jax import errors

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = {"train": settings_lib.TrainConfig, "evaluate": settings_lib.EvalConfig}


def check(job: spec_lib.Job) -> None:
    """Resolve the config of every train and evaluate step with its overrides, as the command would.

    Raises:
      UserError: a file that does not exist, an unknown setting, a wrong value.
    """
    for step in job.spec.steps:
        if step.run in KINDS:
            try:
                _check_step(step)
            except errors.UserError as e:
                raise errors.UserError(f"job {job.name}, {step.run}: {e}") from e


def _check_step(step: spec_lib.Step) -> None:
    if not step.config:
        raise errors.UserError("no config is named")
    config = _load(step.config)
    for key, value in step.overrides.items():
        _override(config, key, value)
    settings_lib.resolve(config, KINDS[step.run])


def _load(name: str) -> Any:
    path, _, argument = name.partition(":")
    file = ROOT / path
    if not file.is_file():
        known = [str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.py")]
        raise errors.UserError(f"{path}: no such config file{errors.nearest(path, known)}")
    module_spec = importlib.util.spec_from_file_location(f"launch_config_{file.stem}", file)
    assert module_spec and module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()


def _override(config: Any, key: str, value: spec_lib.Value) -> None:
    *sections, last = key.split(".")
    for name in (*sections, last):
        if not hasattr(config, "keys") or name not in config.keys():  # noqa: SIM118 -- a ConfigDict
            known = list(config.keys()) if hasattr(config, "keys") else []
            raise errors.UserError(f"config.{key} is not a setting{errors.nearest(name, known)}")
        parent, config = config, config[name]
    try:
        parent[last] = _typed(config, value)
    except (TypeError, ValueError) as e:
        raise errors.UserError(f"config.{key}={value!r}: {str(e).splitlines()[0]}") from e


def _typed(old: Any, value: spec_lib.Value) -> Any:
    """`value` as the command's flag would read it."""
    if isinstance(value, str) and isinstance(old, bool):
        if value not in ("true", "false"):
            raise ValueError("must be true or false")
        return value == "true"
    if isinstance(value, str) and isinstance(old, int | float):
        return type(old)(value)
    if isinstance(old, tuple | list):
        return tuple(str(value).strip("()").split(","))
    return str(value) if isinstance(old, str) else value
