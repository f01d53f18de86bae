"""What comes with the program beside the package: configs/ and launch/, and how they are found by name.

In a checkout they stand beside the package, in a wheel inside of it (pyproject.toml).
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
import importlib
import os
import pathlib
import sys
from types import ModuleType

from vlguard_jax import errors

PACKAGE = pathlib.Path(__file__).parent
IN_WHEEL = "checkout"  # folder of the package that a wheel has them in
ROOT = PACKAGE / IN_WHEEL if (PACKAGE / IN_WHEEL).is_dir() else PACKAGE.parent
# Where a command looks for a config that is named without its folder.
FOLDERS = {
    "train": ("train",),
    "evaluate": ("eval", "released"),
    "ask": ("eval", "released"),
    "plan": ("train", "eval", "released"),
    "curate": ("curate",),
    "prepare": ("train", "clean"),
}


def config(name: str, command: str) -> str:
    """The file of a config that a command takes: FILE or FILE:argument as it stands, where there is such a file, or
    that of the shipped config of this name: rehearsal, train/rehearsal, configs/train/rehearsal.py, each with an
    :argument.

    Raises:
      UserError: neither, or several shipped ones have this name.
    """
    path, colon, argument = name.partition(":")
    if _is_file(path):
        return name
    try:
        return f"{named(path, 'configs', '.py', FOLDERS[command])}{colon}{argument}"
    except errors.UserError as e:
        raise errors.UserError(f"--config={errors.short(name)[1:-1]}: {e}") from e


def names(command: str) -> list[str]:
    """The configs of a command by name."""
    return [name for name in _known("configs", ".py", ROOT) if name.startswith(_below(FOLDERS[command]))]


def short_names(command: str) -> list[str]:
    """The configs of a command as short as `config` takes them: without their folder where only one has the name."""
    found = [(name, name.rpartition("/")[2]) for name in names(command)]
    count = collections.Counter(short for _, short in found)
    return [short if count[short] == 1 else name for name, short in found]


def launch_file(name: str) -> pathlib.Path:
    """The launch file of this path or, where there is none, the shipped one of this name: posthoc_7b,
    examples/posthoc_7b, launch/examples/posthoc_7b.toml.

    Raises:
      UserError: there is neither.
    """
    if _is_file(name):
        return pathlib.Path(name)
    try:
        return named(name, "launch", ".toml", ("examples", "experiments"))
    except errors.UserError as e:
        raise errors.UserError(f"{errors.short(name)[1:-1]}: {e}") from e


def _is_file(path: str) -> bool:
    """Whether it is there and no folder; pipes count."""
    return os.path.exists(path) and not os.path.isdir(path)


def named(name: str, top: str, suffix: str, folders: Iterable[str], root: pathlib.Path = ROOT) -> pathlib.Path:
    """The file of a name below `top`: with its folder, or without it where one of `folders` has it.

    Raises:
      UserError: there is none, and the nearest name is told, or there are several; or the folder `top` is not there.
    """
    if not (root / top).is_dir():
        raise _missing(root / top)
    known = _known(top, suffix, root)
    wanted = name.removeprefix(f"{top}/").removesuffix(suffix)
    if wanted in known:
        return known[wanted]
    found = [f"{folder}/{wanted}" for folder in folders if f"{folder}/{wanted}" in known]
    if len(found) == 1:
        return known[found[0]]
    if found:
        raise errors.UserError(f"several have this name; say which: {' or '.join(found)}")
    own = {key if "/" in wanted else key.rpartition("/")[2] for key in known if key.startswith(_below(folders))}
    near = errors.nearest(wanted, own)
    raise errors.UserError(f"no such file, and nothing of this name comes with the program{near}")


def _known(top: str, suffix: str, root: pathlib.Path) -> dict[str, pathlib.Path]:
    files = sorted((root / top).rglob(f"*{suffix}"))
    return {path.relative_to(root / top).with_suffix("").as_posix(): path for path in files}


def _below(folders: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/" for folder in folders)


def launching(name: str) -> ModuleType:
    """A module of launch/.

    Raises:
      UserError: the folder is not there.
    """
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # first: others call packages so, too
    try:
        return importlib.import_module(f"launch.{name}")
    except ModuleNotFoundError as e:
        if e.name not in ("launch", f"launch.{name}"):
            raise
        raise _missing(ROOT / "launch") from e


def _missing(folder: pathlib.Path) -> errors.UserError:
    return errors.UserError(f"{folder} is missing, which comes with the program; install it again")
