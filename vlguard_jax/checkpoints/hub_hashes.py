"""What the hub says a downloaded file holds: its library leaves the hashes beside the files.

In its cache, files are links to blobs named by their hash; in a folder that was downloaded to (`local_dir`), each has a
record with the hash as its ETag in .cache/huggingface/download (huggingface_hub/_local_folder.py). Large files have
their sha256, small ones the SHA-1 that git gives a blob.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import pathlib
import re

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.checkpoints import manifest

_HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


def of(folder: pathlib.Path) -> dict[pathlib.Path, str]:
    """The hashes of a folder's files, where the hub's library has left them."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = path.relative_to(folder)
        if not path.is_file() or name.parts[0] == ".cache":
            continue
        known = _of_blob(path) or _of_record(folder / ".cache/huggingface/download" / f"{name}.metadata")
        if known:
            found[path] = known
    return found


def _of_blob(path: pathlib.Path) -> str:
    blob = path.resolve()
    return blob.name if path.is_symlink() and blob.parent.name == "blobs" and _HASH.fullmatch(blob.name) else ""


def _of_record(path: pathlib.Path) -> str:
    """The second line: commit, ETag, time."""
    if not path.is_file():
        return ""
    lines = files.read_bytes(path).decode(errors="replace").splitlines()
    return lines[1] if len(lines) > 1 and _HASH.fullmatch(lines[1]) else ""


def check(known: Mapping[pathlib.Path, str]) -> None:
    """Compare files with their hashes.

    Raises:
      UserError: one differs; it is named.
    """
    for path, expected in known.items():
        if (manifest.of(path).sha256 if len(expected) == 64 else _of_git(path)) != expected:
            raise errors.UserError(f"{path}: not what the hub has ({expected[:12]}...): damaged, download it again")


def _of_git(path: pathlib.Path) -> str:
    data = files.read_bytes(path)
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
