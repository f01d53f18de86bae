"""Pictures of LLaVA-NeXT: the units of a picture are its tiles, and its slots depend on its size (tiles.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families.blocks import costs
from vlguard_jax.families.llava_next import config as next_config
from vlguard_jax.families.llava_next import tiles

Config = next_config.LlavaNextConfig


def _layout(config: Config) -> tuple[tiles.Pinpoints, int, int]:
    """Pinpoints, pixels of a tile's side, patches along it."""
    side = config.vision.image_size
    return config.pinpoints, side, side // config.vision.patch_size


def extents(config: Config, sizes: Sequence[types.Size]) -> list[types.Extent]:
    """Slots and tiles of each picture, independent of the others."""
    counts = (tiles.count(size, *_layout(config)) for size in sizes)
    return [types.Extent(slots, units) for units, slots in counts]


def fault(config: Config, mode: str, size: types.Size) -> str:
    """Refuse a picture whose feature map would be empty."""
    return tiles.fault(size, *_layout(config))


def read(config: Config, mode: str, picture: Image.Image, extent: types.Extent) -> family.Arrays:
    """{"images": u8[units, S, S, 3], not normalised, "rows": i32[slots]}."""
    points, side, _ = _layout(config)
    rows = tiles.rows(picture.size, *_layout(config))
    return {"images": tiles.cut(picture, points, side), "rows": rows}


def pool(config: Config, pictures: Sequence[types.Picture], room: family.Room) -> family.Arrays:
    """{"images": u8[room.units, S, S, 3], "rows": i32[room.slots]}: rows index the features of all tiles of the shard's
    room, and after them the newline, which also fills the unused slots."""
    side, patches = config.vision.image_size, config.vision.num_patches
    images, newline = np.zeros((room.units, side, side, 3), np.uint8), room.units * patches
    rows = np.full(room.slots, newline, np.int32)
    unit = slot = 0
    for picture in pictures:
        own, (slots, units) = picture.arrays["rows"], picture.extent
        images[unit : unit + units] = picture.arrays["images"]
        rows[slot : slot + slots] = np.where(own < units * patches, own + unit * patches, newline)
        unit, slot = unit + units, slot + slots
    return {"images": images, "rows": rows}


def show(config: Config, arrays: Mapping[str, np.ndarray], unit: int) -> np.ndarray:
    """The first tile: the whole picture, resized to a square."""
    return arrays["images"][unit]


def plain(config: Config) -> types.Size:
    """A tile's square."""
    return types.Size(config.vision.image_size, config.vision.image_size)


def tower(config: Config) -> family.Tower:
    """Cost of one tile."""
    return costs.clip(config.vision, config.projector, config.text.width)


PICTURES = family.Pictures(
    unit="tile",
    modes=("anyres",),
    sized=True,
    cut=False,
    extents=extents,
    fault=fault,
    read=read,
    pool=pool,
    show=show,
    plain=plain,
    tower=tower,
)
