"""Pictures to square uint8 arrays, exactly as the reference's training and evaluation prepare them.

Source: llava/train/train.py:702-718 (square padding), transformers 4.37.2 models/clip/image_processing_clip.py (resize and crop).
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from jaxtyping import Float32, UInt8
import numpy as np
from PIL import Image

from vlguard_jax import errors
from vlguard_jax.models import config as model_config

MODES = ("pad", "crop")


def load_image(
    path: str | pathlib.Path,
    mode: str,
    size: int,
    mean: Sequence[float] = model_config.CLIP_MEAN,
    *,
    origin: str = "",
) -> UInt8[np.ndarray, "S S 3"]:
    """Read a picture and bring it to `size` x `size`; RGB, not normalised.

    "pad" centres it on a square of the mean colour first (LLaVA's training), "crop" cuts the middle (VLGuard's evaluation).
    Transparency is dropped and an EXIF rotation ignored, as in the reference. `origin` names the record in error messages.

    Raises:
      UserError: the file is missing, truncated or not a picture.
    """
    whose = f" (picture of {origin})" if origin else ""
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except FileNotFoundError as e:
        raise errors.UserError(f"{path}: no such picture{whose}; check the picture folder, or draw stand-ins with prepare") from e
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise errors.UserError(f"{path}: not a readable picture{whose}: {_reason(e)}; download it again") from e
    if mode == "pad":
        picture = _pad_to_square(picture, mean)
    elif mode != "crop":
        raise errors.UserError(f"image mode {mode!r} is unknown{errors.nearest(mode, MODES)}")
    return np.asarray(_resize_and_crop(picture, size))


def normalize(
    image: UInt8[np.ndarray, "*N S S 3"],
    mean: Sequence[float] = model_config.CLIP_MEAN,
    std: Sequence[float] = model_config.CLIP_STD,
) -> Float32[np.ndarray, "*N S S 3"]:
    """The reference's pixel values; the device does the same in models/clip.py."""
    scaled = image.astype(np.float32) * np.float32(1 / 255)
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown format"
    return text[0] if text else type(error).__name__


def _pad_to_square(picture: Image.Image, mean: Sequence[float]) -> Image.Image:
    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in mean))
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


def _resize_and_crop(picture: Image.Image, size: int) -> Image.Image:
    width, height = picture.size
    short, long = sorted((width, height))
    other = int(size * long / short)
    picture = picture.resize((size, other) if width <= height else (other, size), Image.Resampling.BICUBIC)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))
