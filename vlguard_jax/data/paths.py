"""The files that a training's sources name, checked before any of them is read: a slip in the last source is told
before the first one takes minutes."""

from __future__ import annotations

from collections.abc import Iterator
import os
import pathlib

from vlguard_jax import config
from vlguard_jax import errors

_MOST = 3  # problems that a message tells


def check_named(settings: config.TrainConfig) -> None:
    """Check what needs no file, so that it can be asked on another machine.

    Raises:
      UserError: a source names no file, or what only other formats can have.
    """
    _raise_first(problem for where, one in _sources(settings) for problem in _unnamed(where, one))


def check(settings: config.TrainConfig) -> None:
    """As `check_named`, and whether the files are there. Addresses (gs://...) are asked when they are read.

    Raises:
      UserError: as `check_named`; or a file or folder is missing, or is the other.
    """
    check_named(settings)
    problems = [problem for where, one in _sources(settings) for problem in _missing(where, one)]
    if settings.data.replay:
        problems += _file(settings.data.replay, "config.data.replay")
    _raise_first(iter(problems))


def _sources(settings: config.TrainConfig) -> Iterator[tuple[str, config.SourceSettings]]:
    for group, sources in (("data", settings.data.sources), ("validation", settings.validation.sources)):
        for name, one in sources.items():
            yield f"config.{group}.sources.{name}", one


def _raise_first(problems: Iterator[str]) -> None:
    found = list(dict.fromkeys(problems))
    if found:
        more = f"; and {len(found) - _MOST} more" if len(found) > _MOST else ""
        raise errors.UserError("; ".join(found[:_MOST]) + more)


def _unnamed(where: str, one: config.SourceSettings) -> Iterator[str]:
    if not one.path:
        kind = "folder" if one.format == "tfds" else "JSON file"
        yield f"{where}.path is empty: name the {kind}, as --{where}.path=..."
    if one.leak_free and one.format not in ("vlguard", "tfds"):
        yield f'{where}.leak_free is for the formats "vlguard" and "tfds"'


def _missing(where: str, one: config.SourceSettings) -> Iterator[str]:
    if one.format == "tfds":
        yield from _folder(one.path, f"{where}.path")
    elif one.format == "vlguard" and os.path.isdir(one.path):
        yield from _file(os.path.join(one.path, "train.json"), f"{where}.path")
    else:
        yield from _file(one.path, f"{where}.path")
    if one.images and "://" not in one.images and not os.path.exists(one.images):
        yield f"{one.images}: no such picture folder or zip file ({where}.images)"
    for name in ("include_ids", "exclude_ids"):
        if path := getattr(one, name):
            yield from _file(path, f"{where}.{name}")


def _file(path: str, setting: str) -> Iterator[str]:
    if "://" not in path and not pathlib.Path(path).is_file():
        yield f"{path}: {'a folder, not a file' if os.path.isdir(path) else 'no such file'} ({setting})"


def _folder(path: str, setting: str) -> Iterator[str]:
    if "://" not in path and not os.path.isdir(path):
        there = os.path.exists(path)
        yield f"{path}: {'a file, not a folder' if there else 'no such folder'} ({setting})"
