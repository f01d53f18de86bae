"""A made-up family whose pictures take more the larger they are, so that nothing rests on one size for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np
from PIL import Image

from tests.data import stand
from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava import family as llava

SIDE = 10  # of a tile


@dataclasses.dataclass(frozen=True)
class Config(llava_config.LlavaConfig):
    """Sizes as LLaVA's; nothing here looks at them."""


def extents(config: Config, sizes: Sequence[types.Size]) -> list[types.Extent]:
    """Two slots for each tile of 10 x 10 pixels, and one for the whole picture."""
    tiles = [-(-size.width // SIDE) * -(-size.height // SIDE) for size in sizes]
    return [types.Extent(slots=2 * n + 1, units=n) for n in tiles]


def read(config: Config, mode: str, picture: Image.Image, extent: types.Extent) -> family.Arrays:
    """{"tiles": u8[units, 3], "number": i32[units]}: the picture's mean colour, and which of its tiles each is."""
    colour = np.asarray(picture).reshape(-1, 3).mean(0).astype(np.uint8)
    return {"tiles": np.tile(colour, (extent.units, 1)), "number": np.arange(extent.units, dtype=np.int32)}


def pool(config: Config, pictures: Sequence[types.Picture], room: family.Room) -> family.Arrays:
    """The same one after the other, -1 behind the last, and for each slot its picture's number in the shard."""
    tiles, number = np.zeros((room.units, 3), np.uint8), np.full(room.units, -1, np.int32)
    owner = np.full(room.slots, -1, np.int32)
    unit = slot = 0
    for i, (arrays, extent) in enumerate(pictures):
        tiles[unit : unit + extent.units], number[unit : unit + extent.units] = arrays["tiles"], arrays["number"]
        owner[slot : slot + extent.slots] = i
        unit, slot = unit + extent.units, slot + extent.slots
    return {"tiles": tiles, "number": number, "owner": owner}


def show(config: Config, arrays: Mapping[str, np.ndarray], unit: int) -> np.ndarray:
    """A square of the colour."""
    return np.broadcast_to(arrays["tiles"][unit], (SIDE, SIDE, 3))


FAMILY = dataclasses.replace(
    llava.FAMILY,
    name="tiled",
    config=Config,
    presets={},
    max_len=300,
    pictures=dataclasses.replace(
        llava.FAMILY.pictures,
        unit="tile",
        modes=("tiles",),
        sized=True,
        cut=False,
        extents=extents,
        fault=lambda config, mode, size: "are too wide; crop it" if size.width > 100 else "",
        read=read,
        pool=pool,
        show=show,
        plain=lambda config: types.Size(SIDE, SIDE),
    ),
)
MODEL = Config(**vars(stand.sees()))
