"""The user's cache: results that can be recomputed, kept under a hash of everything that determines them.

An entry is a file KIND/KEY, KEY being 64 hexadecimal digits: the sha256 of kind, key and content, then the content. An
entry that does not match its hash counts as missing and is made again, so a damaged or misnamed entry is never used.
Entries hold numbers and JSON, nothing executable. Anyone who can write to the folder can still write matching entries:
see `folder`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pathlib
import re
import stat
import zipfile

import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import folders
from vlguard_jax import limits

VARIABLE = "VLGUARD_CACHE"
_KEY = re.compile(r"[0-9a-f]{64}")
_DIGEST = 32  # bytes
_TOLD: set[str] = set()


def folder(named: str) -> pathlib.Path:
    """The cache's folder: the one in the config, $VLGUARD_CACHE, or vlguard_jax in $XDG_CACHE_HOME or ~/.cache.

    It is made private to this user (0700). A named folder may be shared on purpose: a warning tells once that its group
    can write to it or that it is another user's. A folder that everyone can write to is refused.

    Raises:
      UserError: everyone can write to it; it is another user's and was not named; or it is a file.
    """
    own = os.environ.get("XDG_CACHE_HOME", "")
    given = named or os.environ.get(VARIABLE, "")
    default = pathlib.Path(own if os.path.isabs(own) else "~/.cache", "vlguard_jax")
    found = pathlib.Path(os.path.expanduser(given or default))
    writers = folders.check_writers(found, f"the cache {found}", f"name another with ${VARIABLE}")
    if not given and writers == folders.ANOTHER:
        raise errors.UserError(f"the cache {found} {writers}; name another with ${VARIABLE}")
    if not given and writers:
        found.chmod(0o700)
    elif writers and str(found) not in _TOLD:
        _TOLD.add(str(found))
        logging.getLogger(__name__).warning("the cache %s %s: what they write there is trusted", found, writers)
    return found


def load(cache: pathlib.Path, kind: str, key: str) -> bytes | None:
    """The content of an entry; None if it is missing or damaged.

    Raises:
      UserError: the folder of the kind is a link.
    """
    path = _path(cache, kind, key)
    try:
        with open(path, "rb", opener=_without_links) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or not _DIGEST <= status.st_size <= limits.CACHE_BYTES:
                return None
            digest, content = file.read(_DIGEST), file.read(status.st_size - _DIGEST)
    except OSError:
        return None
    return content if digest == _digest(kind, key, content) else None


def save(cache: pathlib.Path, kind: str, key: str, content: bytes) -> None:
    """Store an entry, whole or not at all.

    Raises:
      UserError: the folder of the kind is a link.
      OSError: it cannot be written.
    """
    path = _path(cache, kind, key)
    make_folder(cache, kind)
    files.write_bytes(path, _digest(kind, key, content) + content)


def make_folder(cache: pathlib.Path, *parts: str) -> None:
    """Make a folder of the cache, and the cache itself, private to this user; no part of it may be a link.

    Raises:
      UserError: one is.
      OSError: it cannot be made.
    """
    if not cache.is_dir():
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.mkdir(mode=0o700, exist_ok=True)
    below = cache
    for part in parts:
        below = below / part
        _refuse_link(below)
        below.mkdir(exist_ok=True)


def _refuse_link(path: pathlib.Path) -> None:
    if path.is_symlink():
        raise errors.UserError(f"{path} is a link, which the cache does not follow; remove it")


def load_arrays(cache: pathlib.Path, kind: str, key: str) -> dict[str, np.ndarray] | None:
    """The arrays of an entry written by `save_arrays`; None if it is missing or damaged."""
    if (content := load(cache, kind, key)) is None:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                return None  # not as written; this way nothing is larger than the file
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception:  # it matches its hash, but `save_arrays` did not write it: numpy may raise anything
        return None


def save_arrays(cache: pathlib.Path, kind: str, key: str, arrays: dict[str, np.ndarray]) -> None:
    """Store arrays; raises as `save`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    save(cache, kind, key, buffer.getvalue())


def _path(cache: pathlib.Path, kind: str, key: str) -> pathlib.Path:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a key of the cache")
    _refuse_link(cache / kind)
    return cache / kind / key


def _digest(kind: str, key: str, content: bytes) -> bytes:
    digest = hashlib.sha256(f"{kind}/{key}\n".encode())
    digest.update(content)
    return digest.digest()


def _without_links(path: str, flags: int) -> int:
    """An opener that refuses links, and opens a pipe without waiting for its writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
