"""Reads a picture folder once: which files are pictures, and what tells duplicates apart.

What was read is kept in a file, a line a picture, so that a stopped scan goes on and a second one reads only what has
changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import hashlib
import io
import os
import pathlib
import struct

from jaxtyping import UInt8
import numpy as np
from PIL import ExifTags
from PIL import Image

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import progress
from vlguard_jax import typed
from vlguard_jax.data import images
from vlguard_jax.data import records
from vlguard_jax.safety import results

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm"),
)
BITS = 128  # of a hash
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FORMAT = "2"  # of the hashes
_MARGIN = 2  # levels of grey by which neighbours must differ, so that a plain surface has no bits of noise
_BLOCK = 64  # pictures that are noted together


@dataclasses.dataclass(frozen=True)
class Seen(results.Keyed):
    """One picture.

    Attributes:
      key: of what was read: name, size, when it was written and when anything about the file changed.
      name: its path below the folder, with "/".
      sha256: of its file.
      pixels: sha256 of its size and RGB pixels, so that the same picture in another file is known; empty if `fault`.
      width, height: in pixels.
      bits: the perceptual hash, as 32 hexadecimal digits.
      fault: why it cannot be used; empty where it can.
    """

    name: typed.Name
    sha256: typed.Name
    pixels: typed.Name
    width: typed.Count
    height: typed.Count
    bits: typed.Name
    fault: typed.Name

    @property
    def source(self) -> str:
        """The folder at the top that it comes from; "." where it lies there itself."""
        return self.name.partition("/")[0] if "/" in self.name else "."


@dataclasses.dataclass(frozen=True)
class Folder:
    """pictures: by name. others: number of files that are no pictures by their names. notices: sentences for the
    user."""

    path: pathlib.Path
    pictures: tuple[Seen, ...]
    others: int
    notices: tuple[str, ...] = ()


def scan(folder: pathlib.Path, notes: pathlib.Path, setting: str, tell: progress.Tell | None = None) -> Folder:
    """Read all pictures in `folder` and below it; what is in `notes` already is not read again.

    Args:
      folder: links to folders in it are not followed, and told.
      notes: file of lines.
      setting: that names the folder, for messages.
      tell: gets (pictures read, to read) from time to time.

    Raises:
      UserError: no such folder, no picture in it, or damaged notes.
    """
    if not folder.is_dir():
        raise errors.UserError(f"{folder}: no such folder ({setting})")
    names, others, links = _names(folder)
    if not names:
        raise errors.UserError(
            f"{folder}: no picture in this folder or below it ({setting}), but {_what(others, links)}; pictures are"
            f" files whose names end with {', '.join(SUFFIXES[:6])} and so on"
        )
    kept = results.Lines(notes, Seen)
    known = {one.key: one for one in kept.lines}
    keys = {name: _key(folder, name) for name in names}
    missing = [name for name in names if keys[name] not in known]
    done = 0
    for block in _read(folder, missing, keys):
        kept.append(block)
        known |= {one.key: one for one in block}
        done += len(block)
        if tell is not None:
            tell(done, len(missing))
    notices = tuple(filter(None, (kept.notice, _linked(folder, links), _in_case(folder, names))))
    return Folder(folder, tuple(known[keys[name]] for name in names), len(others), notices)


def _linked(folder: pathlib.Path, links: Sequence[str]) -> str:
    if not links:
        return ""
    return (
        f"{folder}: links to folders, whose pictures were not read: {len(links):,}, {errors.short(links[0])} first; put"
        " the folders themselves there"
    )


def _in_case(folder: pathlib.Path, names: Sequence[str]) -> str:
    first: dict[str, str] = {}
    alike = [(before, name) for name in names if (before := first.setdefault(name.casefold(), name)) != name]
    if not alike:
        return ""
    return (
        f"{folder}: names that differ in upper and lower case alone: {len(alike):,}, {errors.short(alike[0][0])} and"
        f" {errors.short(alike[0][1])} first; on a disk that does not tell them apart one replaces the other: rename"
        " them before the set is copied to one"
    )


def _names(folder: pathlib.Path) -> tuple[list[str], list[str], list[str]]:
    """(pictures, other files, links to folders), in order."""
    found: tuple[list[str], list[str]] = [], []
    links: list[str] = []
    for place, inner, here in os.walk(folder, onerror=_failed):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        links += [_below(folder, place, name) for name in inner if os.path.islink(os.path.join(place, name))]
        for name in here:
            path = _below(folder, place, name)
            is_picture = name.lower().endswith(SUFFIXES) and not name.startswith(".")
            found[not is_picture].append(path)
    return sorted(found[0]), sorted(found[1]), sorted(links)


def _below(folder: pathlib.Path, place: str, name: str) -> str:
    return os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")


def _failed(error: OSError) -> None:
    raise errors.UserError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _what(others: list[str], links: list[str]) -> str:
    if zipped := [name for name in others if name.lower().endswith((".zip", ".tar", ".gz", ".tgz"))]:
        return f"an archive {errors.short(zipped[0])}, which must be unpacked first"
    if links:
        return f"a link to a folder {errors.short(links[0])}, which is not followed: put the folder itself there"
    return f"{len(others)} other files" if others else "nothing at all"


def _key(folder: pathlib.Path, name: str) -> str:
    try:
        found = os.stat(folder / name)
        # the last one for pictures that change places: they keep their sizes and dates
        stamp = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    except OSError:  # a link to nowhere: told when it is read
        stamp = ""
    text = f"{FORMAT}\n{os.path.abspath(folder)}\n{name}\n{stamp}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _read(folder: pathlib.Path, names: Sequence[str], keys: dict[str, str]) -> Iterator[list[Seen]]:
    threads = min(32, 2 * (os.cpu_count() or 1))  # decoding releases the interpreter, and disks may be far
    with futures.ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(names), _BLOCK):
            yield list(pool.map(lambda name: look(folder, name, keys[name]), names[first : first + _BLOCK]))


def look(folder: pathlib.Path, name: str, key: str) -> Seen:
    """Read one picture; what is wrong with it is in `fault`."""
    shown, digest = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), ""
    try:
        if shown != name:
            raise errors.UserError("its name is not UTF-8; rename it")
        records.check_picture_path(name, "its name")
        content = files.read_bytes(folder / name, limits.PICTURE_BYTES)
        digest = results.sha256(content)
        picture = upright(images.to_rgb(io.BytesIO(content)))
    except images.Fault as e:
        return Seen(key, shown, digest, "", 0, 0, "", images.reason(e))
    except errors.UserError as e:
        return Seen(key, shown, digest, "", 0, 0, "", str(e))
    except OSError as e:
        return Seen(key, shown, digest, "", 0, 0, "", f"cannot be read: {e.strerror or e}")
    width, height = picture.size
    pixels = results.sha256(f"{width}x{height}\n".encode() + picture.tobytes())
    return Seen(key, name, digest, pixels, width, height, perceptual(picture).tobytes().hex(), "")


def upright(picture: Image.Image) -> Image.Image:
    """The picture as EXIF says that it is to be shown. Models see it as it is stored; copies are found either way. A
    broken EXIF turns nothing."""
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, struct.error):
        turn = None
    return picture if turn is None else picture.transpose(turn)


def perceptual(picture: Image.Image) -> UInt8[np.ndarray, "16"]:
    """The hash of a picture that changes little with its size, compression and brightness: of the picture in 9 x 9
    cells of grey, whether a cell is brighter than its left neighbour, and than the one above (a difference hash, both
    ways)."""
    grey = np.asarray(picture.convert("L").resize((9, 9), Image.Resampling.BOX), np.int16)
    across = grey[:8, 1:] - grey[:8, :-1] > _MARGIN
    down = grey[1:, :8] - grey[:-1, :8] > _MARGIN
    return np.packbits(np.stack([across, down]))
