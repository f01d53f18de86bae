"""Checks every picture of a run before it starts, so that a bad one is found now and not at step 900."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import dataclasses
import hashlib
import os
import pathlib
import struct

from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import images
from vlguard_jax.data import pictures
from vlguard_jax.data.tfds import reader
from vlguard_jax.families import family
from vlguard_jax.families import table

LEVELS = ("exists", "header", "decode")
MISSING = "no such picture; check the picture folder"

_FORMAT = "2"  # of the stored results, and of what is checked
_DIGEST = 16  # bytes
_SIZE = struct.Struct("<II")  # width and height, after the digest of a good picture
_NOTE = _DIGEST + _SIZE.size
_BLOCK = 64  # pictures per task


@dataclasses.dataclass(frozen=True)
class Checked:
    """bad: why pictures cannot be used and what to do, in one line each. sizes: of the others, by name; none at level
    "exists"."""

    bad: Mapping[str, str]
    sizes: Mapping[str, types.Size]


def check(
    store: pictures.Store | reader.PreparedVLGuard,
    names: Sequence[str],
    level: str,
    model: family.Config | None = None,
    mode: str = "",
    progress: Callable[[int, int], None] | None = None,
    *,
    cache: pathlib.Path | None = None,
    threads: int = 0,
) -> Checked:
    """Find the pictures that `images.load` would refuse for `model` in `mode`; without a model, for any.

    `level` "exists" only lists folders; "header" opens each picture and checks its size, its pixel format and its last
    bytes (from an archive or a remote address it is read whole for that); "decode" decodes it. Where a picture's slots
    depend on its size, "exists" opens it, too. `progress` gets (pictures checked, pictures to check) from time to time.
    A good picture is cached in the folder `cache` with its size, and not opened again until its stamp changes.
    `threads` 0: four per core, since most of the time is spent waiting.

    Raises:
      UserError: an unknown level, a name that leads out of the store, or an incomplete zip file.
    """
    if level not in LEVELS:
        raise errors.UserError(f"config.data.check_pictures={level!r} is unknown{errors.nearest(level, LEVELS)}")
    names = list(dict.fromkeys(names))
    sees = table.of(model).pictures if model is not None else None
    if level == "exists" and not (sees and sees.sized):
        return Checked(dict.fromkeys(store.missing(names), MISSING), {})
    stamps = store.stamps(names)
    bad = {name: MISSING for name in names if name not in stamps}
    digests = {name: _digest(name, stamp) for name, stamp in stamps.items()} if cache else {}
    key = _key(store, level, model, mode)
    good = _read(cache, key)
    known = {name: good[digest] for name, digest in digests.items() if digest in good}
    todo = [name for name in stamps if name not in known]
    found = _looked(store, todo, level == "decode", model, mode, progress, threads or 4 * (os.cpu_count() or 1))
    sizes = known | {name: size for name, size in found.items() if not isinstance(size, str)}
    bad |= {name: reason for name, reason in found.items() if isinstance(reason, str)}
    if cache is not None and len(sizes) > len(known):
        good |= {digests[name]: sizes[name] for name in todo if name in sizes}
        notes = b"".join(digest + _SIZE.pack(*size) for digest, size in sorted(good.items()))
        cache_lib.save(cache, "pictures", key, notes)
    return Checked({name: bad[name] for name in names if name in bad}, sizes)


def _looked(
    store: pictures.Store | reader.PreparedVLGuard,
    names: list[str],
    decode: bool,
    model: family.Config | None,
    mode: str,
    progress: Callable[[int, int], None] | None,
    threads: int,
) -> dict[str, types.Size | str]:
    """The size of each picture, or why it cannot be used."""

    def look(block: list[str]) -> dict[str, types.Size | str]:
        return {name: _look(store, name, decode, model, mode) for name in block}

    found: dict[str, types.Size | str] = {}
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


def _look(
    store: pictures.Store | reader.PreparedVLGuard, name: str, decode: bool, model: family.Config | None, mode: str
) -> types.Size | str:
    try:
        with store.open(name) as file:
            return images.look(file, model, mode, decode=decode)
    except images.Fault as e:
        return images.reason(e)
    except errors.UserError as e:  # this picture alone: damaged in its archive, or not readable
        return str(e)
    except OSError as e:
        return f"cannot be read: {e.strerror or e}"


def _blocks(names: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(names), _BLOCK):
        yield names[first : first + _BLOCK]


def _key(store: pictures.Store | reader.PreparedVLGuard, level: str, model: family.Config | None, mode: str) -> str:
    place = store.location if "://" in store.location else os.path.abspath(store.location)
    fields = dataclasses.fields(model) if model is not None else ()
    sizes = [getattr(model, field.name) for field in fields if field.name != "text"]
    key = (_FORMAT, place, level, type(model).__name__, mode, repr(sizes))
    return hashlib.sha256("\n".join(key).encode()).hexdigest()


def _digest(name: str, stamp: str) -> bytes:
    return hashlib.blake2b(f"{name}\n{stamp}".encode(), digest_size=_DIGEST).digest()


def _read(cache: pathlib.Path | None, key: str) -> dict[bytes, types.Size]:
    """The pictures stored as good, by digest; none where the file is missing or damaged."""
    content = (cache_lib.load(cache, "pictures", key) if cache else None) or b""
    if len(content) % _NOTE:
        return {}
    notes = (content[at : at + _NOTE] for at in range(0, len(content), _NOTE))
    found = {note[:_DIGEST]: types.Size(*_SIZE.unpack(note[_DIGEST:])) for note in notes}
    return {digest: size for digest, size in found.items() if min(size) > 0}
