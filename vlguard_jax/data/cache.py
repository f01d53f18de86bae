"""The user's cache, and the one way into it: what can be made again, kept under the hash of all that decides it.

An entry is a file KIND/KEY, KEY 64 hexadecimal digits: the sha256 of kind, key and content, then the content. What does
not match its hash counts as not there and is made again, so a damaged entry, or one under another's name, is never
believed. An entry holds numbers and JSON, nothing that could run. Who can write to the folder can still write entries
that match: see `folder`.
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
    """Where the cache is: the folder that the config names, $VLGUARD_CACHE, or vlguard_jax in $XDG_CACHE_HOME or
    ~/.cache.

    It is made for this user alone (0700). One that was named may be shared, on purpose: that its group can write to it,
    or that it is another user's, is said once. Nobody's word is taken from a folder that everyone can write to.

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
        logging.getLogger(__name__).warning("the cache %s %s: what they write there is believed", found, writers)
    return found


def load(cache: pathlib.Path, kind: str, key: str) -> bytes | None:
    """The content of an entry, None where it is not there whole.

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
    """Keep an entry, whole or not at all.

    Raises:
      UserError: the folder of the kind is a link.
      OSError: it cannot be written.
    """
    path = _path(cache, kind, key)
    make_folder(cache, kind)
    files.write_bytes(path, _digest(kind, key, content) + content)


def make_folder(cache: pathlib.Path, *parts: str) -> None:
    """Make a folder of the cache, and the cache itself, which is this user's alone; no part of it is a link.

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
    """The arrays of an entry that `save_arrays` wrote; None where it is not there whole."""
    if (content := load(cache, kind, key)) is None:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                return None  # not as it is written; so nothing is larger than the file
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception:  # it matches its hash, yet `save_arrays` did not write it: numpy may raise anything over it
        return None


def save_arrays(cache: pathlib.Path, kind: str, key: str, arrays: dict[str, np.ndarray]) -> None:
    """Keep arrays; raises as `save`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    save(cache, kind, key, buffer.getvalue())


def _path(cache: pathlib.Path, kind: str, key: str) -> pathlib.Path:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of the cache")
    _refuse_link(cache / kind)
    return cache / kind / key


def _digest(kind: str, key: str, content: bytes) -> bytes:
    digest = hashlib.sha256(f"{kind}/{key}\n".encode())
    digest.update(content)
    return digest.digest()


def _without_links(path: str, flags: int) -> int:
    """Opens no link, and a pipe without waiting for its writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
