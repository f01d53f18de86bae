"""Completes commands, flags, settings and names of configs of `vlguard` in a shell."""

from __future__ import annotations

from collections.abc import Iterable
import importlib
import shlex

from absl import flags

from vlguard_jax import shipped

_SCRIPT = """\
if [ -n "$ZSH_VERSION" ]; then autoload -U +X compinit bashcompinit && compinit && bashcompinit; fi
complete -o default -o nospace -C 'vlguard --complete' vlguard
"""
_CONFIGS = {"train": "TrainConfig", "plan": "TrainConfig", "evaluate": "EvalConfig", "ask": "EvalConfig"}


def script() -> str:
    """What a shell evaluates once."""
    return _SCRIPT


def words(line: str, commands: Iterable[str]) -> list[str]:
    """What may stand at the end of a command line that begins with "vlguard"."""
    try:
        given = shlex.split(line)
    except ValueError:  # an open quote
        return []
    last = "" if line.endswith(" ") else given.pop() if len(given) > 1 else ""
    if len(given) < 2:
        return [f"{name} " for name in _begun(last, commands)]
    if given[-1] == "--config" and given[1] in shipped.FOLDERS:
        return [
            f"{name} " for name in _begun(last, shipped.short_names(given[1])) or _begun(last, shipped.names(given[1]))
        ]
    if given[1:] == ["prepare"] and not last.startswith("-"):
        return [f"{name} " for name in _begun(last, importlib.import_module("vlguard_jax.preparing.commands").COMMANDS)]
    if given[1] not in commands or not last.startswith("-"):
        return []
    found = [*_flags(given[1]), *_settings(given[1])]
    return sorted(f"--{name}=" for name in found if f"--{name}".startswith(last))


def _begun(last: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(last)]


def _flags(command: str) -> list[str]:
    try:
        module = importlib.import_module(f"vlguard_jax.{command}")
    except ImportError:
        return []
    return [flag.name for flag in flags.FLAGS.get_flags_for_module(module.__name__)]


def _settings(command: str) -> list[str]:
    from vlguard_jax import config
    from vlguard_jax import reference

    if command not in _CONFIGS:
        return []
    known = reference.settings(getattr(config, _CONFIGS[command]))
    return [f"config.{one.path.removesuffix('[]')}" for one in known if "*" not in one.path]
