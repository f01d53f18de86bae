"""Sizes of a LLaVA-NeXT model."""

from __future__ import annotations

import dataclasses
from typing import Any

from vlguard_jax import fields
from vlguard_jax import limits
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava_next import tiles

V1_6: tiles.Pinpoints = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))  # of the published models


@dataclasses.dataclass(frozen=True)
class LlavaNextConfig(llava_config.LlavaConfig):
    """LLaVA-1.5's sizes, and the resolutions (height, width), in pixels, that pictures are resized to."""

    pinpoints: tiles.Pinpoints = V1_6


def of_v1_6(side: int) -> tiles.Pinpoints:
    """The published models' grids for tiles of another size."""
    return tuple((high // 336 * side, wide // 336 * side) for high, wide in V1_6)


def from_record(found: fields.Fields) -> LlavaNextConfig:
    """Sizes as `dataclasses.asdict` stored them.

    Raises:
      UserError: an unknown key, or a value that no model can have.
    """
    own = {key: value for key, value in found.values.items() if key != "pinpoints"}
    base = llava_config.from_record(fields.Fields(own, found.where))
    points = pinpoints(found, "pinpoints", base.vision.image_size)
    return LlavaNextConfig(base.text, base.vision, base.projector, points)


def pinpoints(found: fields.Fields, key: str, side: int, default: tiles.Pinpoints = ()) -> tiles.Pinpoints:
    """The list of [height, width] under `key`. side: of a tile.

    Raises:
      UserError: it is missing without a default, has too many pairs, or a side is not a multiple of a tile's or too
        long.
    """
    value: Any = default if found.values.get(key) is None else found.values[key]
    if (
        not isinstance(value, (list, tuple))
        or not 0 < len(value) <= limits.PINPOINTS
        or not all(
            isinstance(point, (list, tuple))
            and len(point) == 2
            and all(_fits(pixels, side) for pixels in point)
            and point[0] * point[1] <= limits.PICTURE_PIXELS
            for point in value
        )
    ):
        wanted = f"1 to {limits.PINPOINTS} pairs of a height and a width, multiples of the tile's {side} pixels up to"
        most = f"{limits.PINPOINT_TILES} of them, {limits.PICTURE_PIXELS:,} pixels in all"
        raise found.wrong(key, f"{wanted} {most}")
    return tuple((high, wide) for high, wide in value)


def _fits(pixels: object, side: int) -> bool:
    return type(pixels) is int and pixels % side == 0 and side <= pixels <= limits.PINPOINT_TILES * side
