"""Pictures from files: opened safely, checked for a model, and preprocessed by its family."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import functools
import io
import pathlib
import warnings

from PIL import Image

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families import table

# Accepted formats. Pillow knows more, some of them risky in files from strangers (EPS starts Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
COSTLY = ("JPEG2000", "WEBP", "AVIF")  # their decoders take twice the memory of others

File = io.BytesIO | io.BufferedReader

_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")

# Pillow warns about odd metadata, pictures with many pixels and transparency in palettes. None of it affects the pixels
# used here, and the warnings name no file. The filter is set once, since setting one around each call is not
# thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Fault(ValueError):
    """Why a picture cannot be used, and what to do about it; does not name the file."""


def load(
    picture: str | pathlib.Path | bytes, config: family.Config, mode: str, *, origin: str = "", name: str = ""
) -> types.Picture:
    """Read a picture and preprocess it as the model's family does in `mode` (families/*/pictures.py).

    `picture` is a path, or the content of a file that messages call `name`; `origin` names the record in messages.

    As in the references: transparency is dropped, EXIF rotation ignored, CMYK converted by Pillow, only the first frame
    of an animation used, and 16 bits per colour channel reduced to the upper 8. A picture may be one pixel, row or
    column.

    Errors: truncated, empty and unknown files; not a regular file; more bytes, pixels, scans or a longer side than
    limits.PICTURE_... allow; single-channel pictures of more than 8 bits, in which Pillow, and so the references, would
    clip values above 255 to white; and pictures that the family refuses (`Pictures.fault`).

    Raises:
      UserError: the picture is missing, or one of the above.
    """
    sees = _sees(config)
    whose = f" (picture of {origin})" if origin else ""
    label = name if isinstance(picture, bytes) else str(picture)
    try:
        content = picture if isinstance(picture, bytes) else _content(picture)
        rgb = to_rgb(io.BytesIO(content), config, mode)
    except errors.UserError as e:
        raise errors.UserError(f"{e}{whose}") from e
    except FileNotFoundError as e:
        raise errors.UserError(f"{label}: no such picture{whose}; check the picture folder") from e
    except (OSError, ValueError) as e:
        raise errors.UserError(f"{label}: not a readable picture{whose}: {reason(e)}") from e
    (extent,) = sees.extents(config, [types.Size(*rgb.size)])
    return types.Picture(sees.read(config, mode, rgb, extent), extent)


def _sees(config: family.Config) -> family.Pictures:
    sees = table.of(config).pictures
    if sees is None:
        raise errors.UserError(f"a {table.of(config).name} model sees no pictures; name one with a vision tower")
    return sees


def _content(path: str | pathlib.Path) -> bytes:
    with open(path, "rb", opener=files.without_waiting) as file:
        return files.read_limited(file, str(path), limits.PICTURE_BYTES)


def to_rgb(file: File, config: family.Config | None = None, mode: str = "") -> Image.Image:
    """A picture's first frame in RGB, checked as by `load`; without a model, by the checks for all models.

    Raises:
      Fault: the model cannot use it in `mode`.
    """
    with _opened(file, config, mode) as picture:
        if picture.format in ("JPEG", "MPO") and "progressive" in picture.info:
            _check_scans(file, picture)
        picture.load()
        return picture if picture.mode == "RGB" else picture.convert("RGB")


def look(file: File, config: family.Config | None, mode: str, *, decode: bool) -> types.Size:
    """The size of a picture that `load` would accept; without a model, by the checks for all models.

    Without `decode` only the header and the last bytes are read, unless they leave it open whether the file is whole:
    then the picture is decoded. Damage in the middle of a file is not noticed.

    Raises:
      Fault: `load` would refuse it.
    """
    with _opened(file, config, mode) as picture:
        size = types.Size(*picture.size)
        whole = _ends_well(file, picture.format or "")
    if decode or not whole:
        file.seek(0)
        to_rgb(file, config, mode)
    return size


def size(file: File) -> types.Size:
    """The size of a picture, from its header.

    Raises:
      Fault: it is not a picture.
    """
    try:
        with Image.open(file, formats=_formats()) as picture:
            return types.Size(*picture.size)
    except Exception as e:  # a decoder fed with damaged bytes may raise anything
        raise Fault(reason(e)) from e


@contextlib.contextmanager
def _opened(file: File, config: family.Config | None, mode: str) -> Iterator[Image.Image]:
    """The picture, with its header read and checked; failures of Pillow inside the context become a Fault."""
    try:
        with Image.open(file, formats=_formats()) as picture:
            _check(picture, config, mode)
            yield picture
    except Image.UnidentifiedImageError as e:
        raise Fault(_unknown(file)) from e
    except Image.DecompressionBombError as e:
        raise Fault(f"more than {limits.PICTURE_PIXELS:,} pixels; scale it down") from e
    except (Fault, MemoryError):
        raise
    except ValueError as e:
        # Pillow's limits for compressed text and colour profiles, which the reference has, too
        if "MAX_TEXT" in str(e):
            raise Fault("its metadata (texts or colour profile) take more than 1 MB; save it again without them") from e
        raise Fault(f"{reason(e)}; download it again") from e
    except Exception as e:  # a decoder fed with damaged bytes may raise anything
        raise Fault(f"{reason(e)}; download it again") from e


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(format_ for format_ in FORMATS if format_ in Image.OPEN)  # AVIF is not in every build


def _unknown(file: File) -> str:
    """What is wrong with a file that is not a picture of a known format."""
    file.seek(0)
    head = file.read(files.HEAD)
    if not head:
        return "the file is empty; download it again"
    guess = "" if head.startswith((b"\x89PNG", b"\xff\xd8")) else files.looks_like(head)
    return guess or "unknown format; download it again, or convert it to JPEG"


def _check(picture: Image.Image, config: family.Config | None, mode: str) -> None:
    width, height = picture.size
    if not min(picture.size):
        raise Fault(f"{width} x {height} pixels; download it again")
    most = limits.PICTURE_PIXELS // (2 if picture.format in COSTLY else 1)
    if width * height > most or max(picture.size) > limits.PICTURE_SIDE:
        raise Fault(
            f"{width} x {height} pixels, more than {most:,} or a side above {limits.PICTURE_SIDE:,}; scale it down"
        )
    if config is not None and (why := _sees(config).fault(config, mode, types.Size(width, height))):
        raise Fault(f"{width} x {height} pixels {why}")
    if picture.mode in _DEEP:
        raise Fault(
            f"more than 8 bits of grey (Pillow's mode {picture.mode}), of which all above 255 would be white;"
            " convert it to 8 bits"
        )


def _check_scans(file: File, picture: Image.Image) -> None:
    """Refuse progressive JPEGs with many scans: each is decoded separately, and may take only a few bytes.

    Does not move `file`.
    """
    here = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")  # in compressed data 0 follows 255
    file.seek(here)
    if scans * picture.width * picture.height > limits.PICTURE_SCANNED:
        raise Fault(f"{picture.width} x {picture.height} pixels in {scans:,} scans; save it again")


def _ends_well(file: File, format_: str) -> bool:
    """Whether the file ends as its format does; False where that cannot be told."""
    length = file.seek(0, io.SEEK_END)
    file.seek(max(0, length - 64))
    tail = file.read()
    if format_ in ("JPEG", "MPO"):
        return b"\xff\xd9" in tail
    if format_ == "PNG":
        return b"IEND" in tail
    if format_ == "GIF":
        return tail.rstrip(b"\0").endswith(b";")
    if format_ == "WEBP":
        file.seek(4)
        return int.from_bytes(file.read(4), "little") + 8 <= length
    return False


def reason(error: Exception) -> str:
    """The error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
