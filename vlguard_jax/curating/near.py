"""Duplicates and near-duplicates: which pictures are left out, and which must stay on one side of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import io
import pathlib

from jaxtyping import Int16, Int64, UInt64
import numpy as np
from PIL import Image

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.curating import scan as scan_lib
from vlguard_jax.curating import settings as settings_lib
from vlguard_jax.data import images

CELLS = 16  # of a shrunk picture, along a side


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A picture that is not in the set: why, in a word that is counted, and in full."""

    name: str
    reason: str
    told: str


@dataclasses.dataclass(frozen=True)
class Unique:
    """kept: by name. dropped: the others. groups: name of each kept one -> name of the first of those that are like it.
    pairs: how many near-duplicates were kept (`on_near="keep"`)."""

    kept: tuple[scan_lib.Seen, ...]
    dropped: tuple[Dropped, ...]
    groups: Mapping[str, str]
    near_kept: int


def sort_out(folder: scan_lib.Folder, against: Sequence[scan_lib.Folder], s: settings_lib.PictureSettings) -> Unique:
    """Leave out what cannot be read, duplicates, and near-duplicates; of those that are alike the first by name stays.

    Raises:
      UserError: a picture cannot be read and `on_bad` is "error", or one has gone since it was scanned.
    """
    dropped: list[Dropped] = []
    for one in folder.pictures:
        if one.fault and s.on_bad == "error":
            raise errors.UserError(
                f'{folder.path}/{one.name}: {one.fault}; or set config.pictures.on_bad="drop" to leave such ones out'
            )
        if one.fault:
            dropped.append(Dropped(one.name, "unreadable", one.fault))
    left = _without_exact([one for one in folder.pictures if not one.fault], against, dropped)
    left = _without_against(left, folder.path, against, s, dropped)
    left, near_kept = _without_near(left, folder.path, s, dropped)
    groups = _groups([one.name for one in left], _bits(left), s.group_bits)
    return Unique(tuple(left), tuple(sorted(dropped, key=lambda one: one.name)), groups, near_kept)


def _without_exact(
    pictures: Sequence[scan_lib.Seen], against: Sequence[scan_lib.Folder], dropped: list[Dropped]
) -> list[scan_lib.Seen]:
    outside = {other.pixels: f"{of.path}/{other.name}" for of in against for other in of.pictures if not other.fault}
    first: dict[str, str] = {}
    left = []
    for one in pictures:
        if one.pixels in outside:
            dropped.append(Dropped(one.name, "in another set", f"the picture {outside[one.pixels]}"))
        elif one.pixels in first:
            dropped.append(Dropped(one.name, "duplicate", f"the picture {first[one.pixels]}"))
        else:
            first[one.pixels] = one.name
            left.append(one)
    return left


def _without_against(
    pictures: list[scan_lib.Seen],
    path: pathlib.Path,
    against: Sequence[scan_lib.Folder],
    s: settings_lib.PictureSettings,
    dropped: list[Dropped],
) -> list[scan_lib.Seen]:
    for of in against:
        others = [other for other in of.pictures if not other.fault]
        theirs, left = _bits(others), []
        for one, bits in zip(pictures, _bits(pictures), strict=True):
            like = next((j for j in _within(bits, theirs, s.near_bits) if _alike(path, one, of.path, others[j], s)), -1)
            if like < 0:
                left.append(one)
            else:
                dropped.append(Dropped(one.name, "near another set", f"like {of.path}/{others[like].name}"))
        pictures = left
    return pictures


def _without_near(
    pictures: Sequence[scan_lib.Seen], path: pathlib.Path, s: settings_lib.PictureSettings, dropped: list[Dropped]
) -> tuple[list[scan_lib.Seen], int]:
    """(those that stay, how many of them are near-duplicates of an earlier one)."""
    bits, of = _bits(pictures), {}
    for i, one in enumerate(pictures):
        if i in of:
            continue
        for j in _within(bits[i], bits[i + 1 :], s.near_bits) + i + 1:
            if int(j) not in of and _alike(path, one, path, pictures[j], s):
                of[int(j)] = one.name
    if s.on_near == "keep":
        return list(pictures), len(of)
    dropped += [Dropped(pictures[j].name, "near-duplicate", f"like {name}") for j, name in of.items()]
    return [one for i, one in enumerate(pictures) if i not in of], 0


def _groups(names: Sequence[str], bits: UInt64[np.ndarray, "n 2"], most: int) -> dict[str, str]:
    """Name -> the first name of all that are connected with it by hashes of at most `most` different bits."""
    above = np.arange(len(names))

    def top(i: int) -> int:
        while above[i] != i:
            above[i] = above[above[i]]
            i = int(above[i])
        return i

    for i in range(len(names)):
        for j in _within(bits[i], bits[i + 1 :], most) + i + 1:
            low, high = sorted((top(i), top(int(j))))
            above[high] = low
    return {name: names[top(i)] for i, name in enumerate(names)}


def _bits(pictures: Sequence[scan_lib.Seen]) -> UInt64[np.ndarray, "n 2"]:
    packed = b"".join(bytes.fromhex(one.bits) for one in pictures)
    return np.frombuffer(packed, np.uint64).reshape(-1, 2)


def _within(one: UInt64[np.ndarray, "2"], others: UInt64[np.ndarray, "n 2"], most: int) -> Int64[np.ndarray, " m"]:
    """The positions of `others` that differ from `one` in at most `most` bits."""
    return np.flatnonzero(np.bitwise_count(others ^ one).sum(-1, dtype=np.int64) <= most)


def _alike(
    path: pathlib.Path,
    one: scan_lib.Seen,
    other_path: pathlib.Path,
    other: scan_lib.Seen,
    s: settings_lib.PictureSettings,
) -> bool:
    """Whether two pictures with like hashes look alike in colours, too, and in small things such as a written line."""
    difference = np.abs(_shrunk(path / one.name) - _shrunk(other_path / other.name))
    return int(difference.max()) <= s.near_levels


@functools.lru_cache(maxsize=4096)
def _shrunk(path: pathlib.Path) -> Int16[np.ndarray, "16 16 3"]:
    try:
        picture = scan_lib.upright(images.to_rgb(io.BytesIO(files.read_bytes(path, limits.PICTURE_BYTES))))
    except images.Fault as e:
        raise errors.UserError(f"{path}: was changed while it was read: {images.reason(e)}; run this again") from e
    return np.asarray(picture.resize((CELLS, CELLS), Image.Resampling.BOX), np.int16)
