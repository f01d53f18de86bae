"""Looks at every picture of a run before it starts, so that a bad one is found now and not at step 900."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import hashlib
import os
import pathlib

from vlguard_jax import errors
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import images
from vlguard_jax.data import pictures
from vlguard_jax.data.tfds import reader

LEVELS = ("exists", "header", "decode")
MISSING = "no such picture; check the picture folder"

_FORMAT = "1"  # of the notes, and of what a check means
_DIGEST = 16  # bytes
_BLOCK = 64  # pictures a task


def check(
    store: pictures.Store | reader.PreparedVLGuard,
    names: Sequence[str],
    level: str,
    progress: Callable[[int, int], None] | None = None,
    *,
    mode: str = "pad",
    size: int = 336,
    cache: pathlib.Path | None = None,
    threads: int = 0,
) -> dict[str, str]:
    """The pictures that `images.load_image` would refuse in `mode` at `size`, each with the reason and the way out in
    one line.

    `level` "exists" lists folders only; "header" opens each picture and looks at its size, its pixel format and its
    last bytes (out of an archive or from a remote address it has to be read whole for that); "decode" decodes it.
    `progress` is told (pictures seen, pictures to see) now and then. A picture found good is remembered in the folder
    `cache` until its stamp changes and is not opened again. `threads` 0: four for each core, since most of the time
    goes into waiting.

    Raises:
      UserError: an unknown level, a name that leads out of the store, or a zip file that is not whole.
    """
    if level not in LEVELS:
        raise errors.UserError(f"config.data.check_pictures={level!r} is unknown{errors.nearest(level, LEVELS)}")
    names = list(dict.fromkeys(names))
    if level == "exists":
        return dict.fromkeys(store.missing(names), MISSING)
    stamps = store.stamps(names)
    bad = {name: MISSING for name in names if name not in stamps}
    digests = {name: _digest(name, stamp) for name, stamp in stamps.items()} if cache else {}
    key = _key(store, level, mode, size)
    good = _read(cache, key)
    todo = [name for name in stamps if digests.get(name) not in good]
    faults = _faults(store, todo, level == "decode", mode, size, progress, threads or 4 * (os.cpu_count() or 1))
    bad |= {name: reason for name, reason in faults.items() if reason}
    if cache is not None and len(faults) > sum(map(bool, faults.values())):
        good |= {digests[name] for name, reason in faults.items() if not reason}
        cache_lib.save(cache, "pictures", key, b"".join(sorted(good)))
    return {name: bad[name] for name in names if name in bad}


def _faults(
    store: pictures.Store | reader.PreparedVLGuard,
    names: list[str],
    decode: bool,
    mode: str,
    size: int,
    progress: Callable[[int, int], None] | None,
    threads: int,
) -> dict[str, str]:
    """For each picture why it cannot be used, or ""."""

    def look(block: list[str]) -> dict[str, str]:
        return {name: _fault(store, name, decode, mode, size) for name in block}

    found: dict[str, str] = {}
    with futures.ThreadPoolExecutor(threads) as pool:
        tasks = [pool.submit(look, block) for block in _blocks(names)]
        try:
            for task in futures.as_completed(tasks):
                found |= task.result()
                if progress is not None:
                    progress(len(found), len(names))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _fault(store: pictures.Store | reader.PreparedVLGuard, name: str, decode: bool, mode: str, size: int) -> str:
    try:
        with store.open(name) as file:
            return images.fault(file, mode, size, decode=decode)
    except errors.UserError as e:  # of this one picture: damaged inside its archive, or not to be opened
        return str(e)
    except OSError as e:
        return f"cannot be read: {e.strerror or e}"


def _blocks(names: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(names), _BLOCK):
        yield names[first : first + _BLOCK]


def _key(store: pictures.Store | reader.PreparedVLGuard, level: str, mode: str, size: int) -> str:
    place = store.location if "://" in store.location else os.path.abspath(store.location)
    return hashlib.sha256("\n".join((_FORMAT, place, level, mode, str(size))).encode()).hexdigest()


def _digest(name: str, stamp: str) -> bytes:
    return hashlib.blake2b(f"{name}\n{stamp}".encode(), digest_size=_DIGEST).digest()


def _read(cache: pathlib.Path | None, key: str) -> set[bytes]:
    """The digests noted as good; none where the notes are missing or damaged."""
    content = (cache_lib.load(cache, "pictures", key) if cache else None) or b""
    if len(content) % _DIGEST:
        return set()
    return {content[at : at + _DIGEST] for at in range(0, len(content), _DIGEST)}
