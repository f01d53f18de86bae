"""Pictures of LLaVA-1.5: one square of the tower's size each, as the reference's training and evaluation make it.

Source: llava/train/train.py:702-718 (square padding), transformers 4.37.2 models/clip/image_processing_clip.py (resize
and crop). Rows of padding skip the first pass of resizing, and columns that the crop drops the second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from vlguard_jax import limits
from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families import resampling
from vlguard_jax.families.blocks import costs
from vlguard_jax.families.llava import config as llava_config

MODES = ("pad", "crop")
STRIP = 1 << 24  # pixels in memory at a time; does not change the result


def extents(config: llava_config.LlavaConfig, sizes: Sequence[types.Size]) -> list[types.Extent]:
    """As many slots as the tower has patches, whatever the size."""
    return [types.Extent(config.vision.num_patches, 1)] * len(sizes)


def fault(config: llava_config.LlavaConfig, mode: str, size: types.Size) -> str:
    """In mode "crop", refuse a picture that would be scaled to more than limits.PICTURE_SCALED pixels (about 2,400
    times as long as wide at 336)."""
    side = config.vision.image_size
    if mode == "crop" and side * _scaled(size, side) > limits.PICTURE_SCALED:
        return "are too long and narrow to cut out the middle; crop it"
    return ""


def read(config: llava_config.LlavaConfig, mode: str, picture: Image.Image, extent: types.Extent) -> family.Arrays:
    """{"images": u8[1, S, S, 3]}, not normalised.

    "pad" first centres the picture on a square of the mean colour (LLaVA's training), "crop" crops the centre
    (VLGuard's evaluation).
    """
    side = config.vision.image_size
    square = pad(picture, side, config.vision.image_mean) if mode == "pad" else crop(picture, side)
    return {"images": np.asarray(square)[None]}


def pool(config: llava_config.LlavaConfig, pictures: Sequence[types.Picture], room: family.Room) -> family.Arrays:
    """{"images": u8[N, S, S, 3]} with N = room.units, zeros after the last picture."""
    side = config.vision.image_size
    images = np.zeros((room.units, side, side, 3), np.uint8)
    for i, picture in enumerate(pictures):
        images[i] = picture.arrays["images"][0]
    return {"images": images}


def show(config: llava_config.LlavaConfig, arrays: Mapping[str, np.ndarray], unit: int) -> np.ndarray:
    """The square."""
    return arrays["images"][unit]


def plain(config: llava_config.LlavaConfig) -> types.Size:
    """The tower's square."""
    return types.Size(config.vision.image_size, config.vision.image_size)


def tower(config: llava_config.LlavaConfig) -> family.Tower:
    """Cost of one picture."""
    return costs.clip(config.vision, config.projector, config.text.width)


def pad(picture: Image.Image, size: int, mean: Sequence[float]) -> Image.Image:
    """An RGB picture centred on a square of the mean colour, resized to `size` x `size`."""
    width, height = picture.size
    side = max(width, height)
    colour = tuple(int(channel * 255) for channel in mean)
    if width > height:
        rows = resampling.resize(picture, size, height)
    elif width < height:
        rows = Image.new("RGB", (size, side))
        step = max(1, STRIP // side)
        for top in range(0, side, step):
            strip = Image.new("RGB", (side, min(step, side - top)), colour)
            strip.paste(picture.crop((0, top, width, top + strip.height)), ((side - width) // 2, 0))
            rows.paste(resampling.resize(strip, size, strip.height), (0, top))
    else:
        return resampling.resize(picture, size, size)
    square = Image.new("RGB", (size, side), colour)
    square.paste(rows, (0, (side - height) // 2))
    return resampling.resize(square, size, size)


def crop(picture: Image.Image, size: int) -> Image.Image:
    """An RGB picture resized so that its shorter side is `size`, and cropped to its central `size` x `size`."""
    width, height = picture.size
    if width > height:
        long = _scaled(picture.size, size)
        left = (long - size) // 2
        return resampling.resize(
            resampling.resize(picture, long, height).crop((left, 0, left + size, height)), size, size
        )
    long = _scaled(picture.size, size)
    top = (long - size) // 2
    rows = resampling.resize(picture, size, height)
    result = Image.new("RGB", (size, size))
    step = max(1, STRIP // long)
    for left in range(0, size, step):
        strip = rows.crop((left, 0, min(left + step, size), height))
        result.paste(resampling.resize(strip, strip.width, long).crop((0, top, strip.width, top + size)), (left, 0))
    return result


def _scaled(pixels: tuple[int, int], size: int) -> int:
    """The longer side in mode "crop", rounded like the reference."""
    return int(size * max(pixels) / min(pixels))


PICTURES = family.Pictures(
    unit="picture",
    modes=MODES,
    sized=False,
    cut=True,
    extents=extents,
    fault=fault,
    read=read,
    pool=pool,
    show=show,
    plain=plain,
    tower=tower,
)
