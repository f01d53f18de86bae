"""manifest.json of a written checkpoint: every file's size and sha256, by which a later load finds any change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent import futures
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import stat
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files

NAME = "manifest.json"
SCHEMA = 1
_OWN = "manifest_sha256"  # over the rest of the manifest
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASHING = 2  # files at a time: more than two do not read faster
_WAY = f"get the folder again, or delete {NAME} if it was changed on purpose"
_FREE = ("README.md",)  # the model card, for people to edit
# Further files that a load could read instead of a listed one; others, as a README.md, may be put into the folder.
_READ = re.compile(r"(arrays/.*|(vision_tower/)?[^/]+\.(json|safetensors|bin|model|jinja|txt|pt|pth))")


@dataclasses.dataclass(frozen=True)
class File:
    """bytes: its size."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Census:
    """What weights a folder holds. dtypes: {name: tensors of it}."""

    tensors: int
    parameters: int
    bytes: int
    dtypes: Mapping[str, int]

    def __str__(self) -> str:
        kinds = ", ".join(f"{n:,} {name}" for name, n in self.dtypes.items())
        return f"{self.tensors:,} tensors ({kinds}), {self.parameters:,} parameters, {self.bytes:,} bytes"


def census(sizes: Iterable[tuple[int, Any]]) -> Census:
    """The census of tensors, by (parameters, dtype) of each."""
    found = list(sizes)
    dtypes: dict[str, int] = {}
    for _, dtype in found:
        dtypes[dtype.name] = dtypes.get(dtype.name, 0) + 1
    return Census(
        len(found),
        sum(n for n, _ in found),
        sum(n * dtype.itemsize for n, dtype in found),
        dict(sorted(dtypes.items())),
    )


def of(path: pathlib.Path) -> File:
    """Size and hash of a file, read now.

    Raises:
      UserError, OSError: see `files.opened`.
    """
    with files.opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(file.tell(), digest)


def all_of(folder: pathlib.Path, names: Iterable[str]) -> dict[str, File]:
    """`of` for files in a folder."""
    wanted = list(names)
    with futures.ThreadPoolExecutor(_HASHING, thread_name_prefix="hash") as pool:
        return dict(zip(wanted, pool.map(lambda name: of(folder / name), wanted), strict=True))


def write(
    folder: pathlib.Path, layout: str, counted: Census, known: Mapping[str, File], weights_sha256: str = ""
) -> None:
    """Write the manifest of all that is in `folder`. known: files whose hashes were made while they were written;
    weights_sha256: of the model, as `Checkpoint.weights_sha256`, or "" where nobody has made it."""
    there = _there(folder)
    found = {**known, **all_of(folder, [name for name in there if name not in known])}
    content = {
        "schema": SCHEMA,
        "layout": layout,
        "weights_sha256": weights_sha256,
        "census": dataclasses.asdict(counted),
        "files": {name: dataclasses.asdict(found[name]) for name in there},
    }
    (folder / NAME).write_text(_dumped(content), encoding="utf-8")


def _dumped(content: Mapping[str, Any]) -> str:
    """The one spelling of a manifest, with the hash of the rest in it."""
    rest = {key: value for key, value in content.items() if key != _OWN}
    own = hashlib.sha256(json.dumps(rest, indent=2).encode()).hexdigest()
    return json.dumps({**rest, _OWN: own}, indent=2) + "\n"


def _there(folder: pathlib.Path) -> list[str]:
    """All files below a folder but its manifest and what is free to be changed, by their names in it."""
    found = []
    for above, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if one != ".cache"]  # of the hub's library
        found += [os.path.relpath(os.path.join(above, name), folder) for name in names]
    return sorted(name for name in found if name not in (NAME, *_FREE))


def has(folder: pathlib.Path) -> bool:
    """Whether there is a manifest, so that the content of a folder can be checked."""
    return os.path.lexists(folder / NAME)


def weights_sha256(folder: pathlib.Path) -> str:
    """The hash of the model in a folder by its manifest, which `check` compares with the files; "" if unknown."""
    if not has(folder):
        return ""
    found = _content(folder).get("weights_sha256")
    return found if isinstance(found, str) and _SHA256.fullmatch(found) else ""


def check(folder: pathlib.Path) -> None:
    """Compare a folder with its manifest, if it has one.

    Raises:
      UserError: a file is missing, differs or was added, or the manifest itself is damaged; it is named.
      PermissionError: this user may not look into a folder.
    """
    if not has(folder):
        return
    listed = read(folder)
    for name, file in listed.items():
        size = _size(folder / name)
        if size != file.bytes:
            how = "is missing" if size is None else f"has {size:,} bytes"
            raise errors.UserError(f"{folder / name}: {how}, and {NAME} says {file.bytes:,} bytes: {_WAY}")
    for name in _there(folder):
        if name not in listed and _READ.fullmatch(name):
            raise errors.UserError(f"{folder / name}: {NAME} does not list it: remove it, or {_WAY}")
    largest_first = sorted(listed, key=lambda name: -listed[name].bytes)
    for name, found in all_of(folder, largest_first).items():
        if found != listed[name]:
            raise errors.UserError(
                f"{folder / name}: not what was written: its sha256 is {found.sha256[:12]}..., and {NAME} says"
                f" {listed[name].sha256[:12]}...: {_WAY}"
            )


def _size(path: pathlib.Path) -> int | None:
    """None where there is no such file. Raises PermissionError: nobody may look."""
    try:
        found = os.stat(path)
    except PermissionError:
        raise
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def read(folder: pathlib.Path) -> dict[str, File]:
    """The files that a manifest lists.

    Raises:
      UserError: it is damaged, or of a later version.
    """
    listed = _content(folder).get("files")
    if not isinstance(listed, dict) or not all(_is_file(name, one) for name, one in listed.items()):
        raise errors.UserError(f"{folder / NAME}: damaged: {_WAY}")
    return {name: File(one["bytes"], one["sha256"]) for name, one in listed.items()}


def _content(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / NAME
    text = files.read_bytes(path)
    damaged = errors.UserError(f"{path}: damaged: {_WAY}")
    try:
        content = files.parse_json(text, str(path))
    except errors.UserError as e:
        raise errors.UserError(f"{e}; {_WAY}") from e
    if not isinstance(content, dict):
        raise damaged
    if content.get("schema") != SCHEMA and type(content.get("schema")) is int and content.get(_OWN):
        raise errors.UserError(f"{path}: schema is {content['schema']}, this program reads {SCHEMA}: {_WAY}")
    if text != _dumped(content).encode():
        raise damaged
    return content


def _is_file(name: str, one: Any) -> bool:
    path = pathlib.PurePosixPath(name)
    inside = bool(name) and "\0" not in name and not path.is_absolute() and ".." not in path.parts
    return (
        inside
        and isinstance(one, dict)
        and type(one.get("bytes")) is int
        and isinstance(one.get("sha256"), str)
        and bool(_SHA256.fullmatch(one["sha256"]))
    )
