"""Pictures to square uint8 arrays, exactly as the reference's training and evaluation prepare them.

Source: llava/train/train.py:702-718 (square padding), transformers 4.37.2 models/clip/image_processing_clip.py (resize
and crop). The result is the reference's to the last bit. Pillow resizes in two passes, up to version 12 always along
the rows first; from version 13 on it takes the columns first if a picture gets much lower than narrower, which rounds
otherwise. Here the passes are called one by one, so the result is that of the reference's time with any Pillow. It also
saves work: rows of nothing but padding need no first pass, columns that the crop drops need no second one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import functools
import io
import pathlib
import typing
import warnings

from jaxtyping import Float32, UInt8
import numpy as np
from PIL import Image

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.models import config as model_config

MODES: tuple[config.ImageMode, ...] = typing.get_args(config.ImageMode)

# What pictures come in. Pillow knows more, some of them risky in files from strangers (EPS starts Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
COSTLY = ("JPEG2000", "WEBP", "AVIF")  # their decoders take twice the memory of others
STRIP = 1 << 24  # pixels held at a time on the way; the result does not depend on it

File = io.BytesIO | io.BufferedReader

_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")

# Pillow warns of odd metadata, of pictures with many pixels and of transparency in palettes. None of it touches the
# pixels used here, and the warnings would name no file. The filter is set once, since setting one around each call is
# not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Fault(ValueError):
    """Why a picture cannot be used and what to do about it; names no file."""


def load_image(
    picture: str | pathlib.Path | bytes,
    mode: str,
    size: int,
    mean: Sequence[float] = model_config.CLIP_MEAN,
    *,
    origin: str = "",
    name: str = "",
) -> UInt8[np.ndarray, "S S 3"]:
    """Read a picture and bring it to `size` x `size`; RGB, not normalised.

    "pad" centres it on a square of the mean colour first (LLaVA's training), "crop" cuts the middle (VLGuard's
    evaluation). `picture` is a path, or the content of a file that messages call `name`; `origin` names the record in
    messages.

    As in the reference: transparency is dropped, an EXIF rotation ignored, CMYK converted as Pillow does it, an
    animation gives its first frame, 16 bits a colour channel are cut to their upper 8. A picture of one pixel, row or
    column is a picture.
    Errors: truncated, empty and unknown files; no regular file; more bytes, pixels, scans or a longer side than
    limits.PICTURE_... allow; in mode "crop" a picture that would be scaled to more than limits.PICTURE_SCALED pixels
    (about 2,400 times as long as wide at 336); and single-channel pictures of more than 8 bits, which Pillow, and so
    the reference, would turn white from 255 on.

    Raises:
      UserError: the picture is missing, or one of the above.
    """
    if mode not in MODES:
        raise errors.UserError(f"image mode {mode!r} is unknown{errors.nearest(mode, MODES)}")
    whose = f" (picture of {origin})" if origin else ""
    label = name if isinstance(picture, bytes) else str(picture)
    try:
        content = picture if isinstance(picture, bytes) else _content(picture)
        rgb = to_rgb(io.BytesIO(content), mode, size)
    except errors.UserError as e:
        raise errors.UserError(f"{e}{whose}") from e
    except FileNotFoundError as e:
        raise errors.UserError(f"{label}: no such picture{whose}; check the picture folder") from e
    except (OSError, ValueError) as e:
        raise errors.UserError(f"{label}: not a readable picture{whose}: {_text(e)}") from e
    return np.asarray(pad(rgb, size, mean) if mode == "pad" else crop(rgb, size))


def _content(path: str | pathlib.Path) -> bytes:
    with open(path, "rb", opener=files.without_waiting) as file:
        return files.read_limited(file, str(path), limits.PICTURE_BYTES)


def to_rgb(file: File, mode: str, size: int) -> Image.Image:
    """A picture's first frame in RGB, checked as `load_image` does.

    Raises:
      Fault: it cannot be used in `mode` at `size`.
    """
    with _opened(file, mode, size) as picture:
        if picture.format in ("JPEG", "MPO") and "progressive" in picture.info:
            _check_scans(file, picture)
        picture.load()
        return picture if picture.mode == "RGB" else picture.convert("RGB")


def fault(file: File, mode: str, size: int, *, decode: bool) -> str:
    """Why `load_image` would refuse the picture, "" if it would not.

    Without `decode` only the header and the last bytes are looked at, unless they leave doubt whether the file is
    whole: then, too, the picture is decoded. What goes unseen is damage in the middle of a file.
    """
    try:
        with _opened(file, mode, size) as picture:
            whole = _ends_well(file, picture.format or "")
        if decode or not whole:
            file.seek(0)
            to_rgb(file, mode, size)
    except Fault as e:
        return _text(e)
    return ""


def normalize(
    image: UInt8[np.ndarray, "*N S S 3"],
    mean: Sequence[float] = model_config.CLIP_MEAN,
    std: Sequence[float] = model_config.CLIP_STD,
) -> Float32[np.ndarray, "*N S S 3"]:
    """The reference's pixel values; the device does the same in models/clip.py."""
    scaled = image.astype(np.float32) * np.float32(1 / 255)
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def pad(picture: Image.Image, size: int, mean: Sequence[float] = model_config.CLIP_MEAN) -> Image.Image:
    """An RGB picture in the middle of a square of the mean colour, resized to `size` x `size`."""
    width, height = picture.size
    side = max(width, height)
    colour = tuple(int(channel * 255) for channel in mean)
    if width > height:
        rows = _resize(picture, size, height)
    elif width < height:
        rows = Image.new("RGB", (size, side))
        step = max(1, STRIP // side)
        for top in range(0, side, step):
            strip = Image.new("RGB", (side, min(step, side - top)), colour)
            strip.paste(picture.crop((0, top, width, top + strip.height)), ((side - width) // 2, 0))
            rows.paste(_resize(strip, size, strip.height), (0, top))
    else:
        return _resize(picture, size, size)
    square = Image.new("RGB", (size, side), colour)
    square.paste(rows, (0, (side - height) // 2))
    return _resize(square, size, size)


def crop(picture: Image.Image, size: int) -> Image.Image:
    """An RGB picture resized so that its shorter side is `size`, and cut to its middle `size` x `size`."""
    width, height = picture.size
    if width > height:
        long = _scaled(picture, size)
        left = (long - size) // 2
        return _resize(_resize(picture, long, height).crop((left, 0, left + size, height)), size, size)
    long = _scaled(picture, size)
    top = (long - size) // 2
    rows = _resize(picture, size, height)
    result = Image.new("RGB", (size, size))
    step = max(1, STRIP // long)
    for left in range(0, size, step):
        strip = rows.crop((left, 0, min(left + step, size), height))
        result.paste(_resize(strip, strip.width, long).crop((0, top, strip.width, top + size)), (left, 0))
    return result


def _resize(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Along the rows first, then along the columns."""
    for size in ((width, picture.height), (width, height)):
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
    return picture


def _scaled(picture: Image.Image, size: int) -> int:
    """The longer side in mode "crop", rounded as the reference rounds it."""
    return int(size * max(picture.size) / min(picture.size))


@contextlib.contextmanager
def _opened(file: File, mode: str, size: int) -> Iterator[Image.Image]:
    """The picture with its header read and found fit; Pillow's failures inside the block come out as a Fault."""
    try:
        with Image.open(file, formats=_formats()) as picture:
            _check(picture, mode, size)
            yield picture
    except Image.UnidentifiedImageError as e:
        raise Fault(_unknown(file)) from e
    except Image.DecompressionBombError as e:
        raise Fault(f"more than {limits.PICTURE_PIXELS:,} pixels; scale it down") from e
    except (Fault, MemoryError):
        raise
    except ValueError as e:
        # Pillow's bounds for compressed text and colour profiles, which the reference keeps, too
        if "MAX_TEXT" in str(e):
            raise Fault("its metadata (texts or colour profile) take more than 1 MB; save it again without them") from e
        raise Fault(f"{_text(e)}; download it again") from e
    except Exception as e:  # a decoder fed with damaged bytes may raise anything
        raise Fault(f"{_text(e)}; download it again") from e


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(format_ for format_ in FORMATS if format_ in Image.OPEN)  # AVIF is not in every build


def _unknown(file: File) -> str:
    """What is wrong with a file that is no picture of a known format."""
    file.seek(0)
    head = file.read(files.HEAD)
    if not head:
        return "the file is empty; download it again"
    guess = "" if head.startswith((b"\x89PNG", b"\xff\xd8")) else files.looks_like(head)
    return guess or "unknown format; download it again, or convert it to JPEG"


def _check(picture: Image.Image, mode: str, size: int) -> None:
    width, height = picture.size
    if not min(picture.size):
        raise Fault(f"{width} x {height} pixels; download it again")
    most = limits.PICTURE_PIXELS // (2 if picture.format in COSTLY else 1)
    if width * height > most or max(picture.size) > limits.PICTURE_SIDE:
        raise Fault(
            f"{width} x {height} pixels, more than {most:,} or a side above {limits.PICTURE_SIDE:,}; scale it down"
        )
    if mode == "crop" and size * _scaled(picture, size) > limits.PICTURE_SCALED:
        raise Fault(f"{width} x {height} pixels are too long and narrow to cut out the middle; crop it")
    if picture.mode in _DEEP:
        raise Fault(
            f"more than 8 bits of grey (Pillow's mode {picture.mode}), of which all above 255 would be white;"
            " convert it to 8 bits"
        )


def _check_scans(file: File, picture: Image.Image) -> None:
    """A progressive JPEG is decoded once for every scan, and a scan may take a few bytes.

    Leaves `file` where it was.
    """
    here = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")  # in compressed data 0 comes behind 255
    file.seek(here)
    if scans * picture.width * picture.height > limits.PICTURE_SCANNED:
        raise Fault(f"{picture.width} x {picture.height} pixels in {scans:,} scans; save it again")


def _ends_well(file: File, format_: str) -> bool:
    """Whether the file has the end of its format. False where that cannot be told."""
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


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
