"""A working directory belongs to one configuration: it is written beside the results and compared when a run comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files

CONFIG_FILE = "config.json"


def plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON-ready dict."""
    return json.loads(json.dumps(dataclasses.asdict(settings), sort_keys=True))


def config_hash(settings: Any) -> str:
    """sha256 over the settings."""
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()


def check(folder: Path, settings: Any, *, free: tuple[str, ...] = ()) -> None:
    """Raise UserError if `folder` is the working directory of another configuration; the first difference is named.

    `free` names settings (or sections) that may differ between the run and its resumption because they change no result. A setting
    that did not exist yet when the directory was claimed counts as having its default.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return
    there = _completed(files.read_object(path, finite=False), settings)
    for key, ours, stored in _differences(plain(settings), there):
        if not any(key == f or key.startswith(f + ".") for f in free):
            raise errors.UserError(
                f"--workdir={folder} belongs to another run: config.{key} is {errors.short(ours)} here and {errors.short(stored)} there; "
                "choose another --workdir, or the same config to resume"
            )


def claim(folder: Path, settings: Any, *, free: tuple[str, ...] = ()) -> None:
    """Make `folder` the working directory of `settings`, or `check` that it already is.

    Raises:
      UserError: the folder holds another configuration, or cannot be written.
    """
    check(folder, settings, free=free)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / CONFIG_FILE, json.dumps(plain(settings), indent=1, sort_keys=True) + "\n")
    except OSError as e:
        raise errors.UserError(f"--workdir={folder} cannot be written: {e}") from e


def _completed(stored: Any, settings: Any) -> Any:
    """`stored` with the defaults of what `settings` has and it lacks."""
    if not isinstance(stored, Mapping):
        return stored
    if isinstance(settings, Mapping):
        return {key: _completed(value, settings.get(key)) for key, value in stored.items()}
    if not dataclasses.is_dataclass(settings):
        return stored
    known = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return _defaults(settings) | {key: _completed(value, known.get(key)) for key, value in stored.items()}


def _defaults(settings: Any) -> dict[str, Any]:
    result = {}
    for field in dataclasses.fields(settings):
        if field.default is not dataclasses.MISSING:
            result[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            result[field.name] = field.default_factory()
    return json.loads(json.dumps(result, default=dataclasses.asdict))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(a.keys() | b.keys()):
        x, y = a.get(key), b.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            yield from _differences(x, y, f"{prefix}{key}.")
        elif x != y:
            yield f"{prefix}{key}", x, y
