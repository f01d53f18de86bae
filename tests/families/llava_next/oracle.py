"""What transformers makes of pictures for LLaVA-NeXT, with any version of Pillow."""

from __future__ import annotations

import types

import numpy as np
from PIL import Image
from transformers.image_utils import SizeDict
from transformers.models.llava_next import image_processing_pil_llava_next as oracle_pixels
from transformers.models.llava_next import processing_llava_next as oracle_text

# Pinpoints in tiles, (vertically, horizontally).
GRIDS = {
    "v1.6": ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)),
    "one": ((1, 1),),
    "wide": ((1, 3),),
    "tall": ((4, 1),),
    "square": ((2, 2),),
    "all": tuple((i, j) for i in range(1, 7) for j in range(1, 7)),
}
SIDES = {336: 14, 28: 14, 16: 8, 42: 14}  # a tile's side and a patch's, in pixels


def pinpoints(grid: str, side: int) -> tuple[tuple[int, int], ...]:
    """In pixels, (height, width)."""
    return tuple((high * side, wide * side) for high, wide in GRIDS[grid])


class RowsFirst(oracle_pixels.LlavaNextImageProcessorPil):
    """As with Pillow up to version 12."""

    def resize(self, image: np.ndarray, size: SizeDict, **options) -> np.ndarray:
        if size.height:
            image = super().resize(image, SizeDict(height=image.shape[1], width=size.width), **options)
        return super().resize(image, size, **options)


def processor(grid: str, side: int, kind: type = RowsFirst) -> oracle_pixels.LlavaNextImageProcessorPil:
    """With these pinpoints, and tiles of this side."""
    return kind(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=[list(pinpoint) for pinpoint in pinpoints(grid, side)],
    )


def pixels(picture: Image.Image, grid: str, side: int, kind: type = RowsFirst, **options: bool) -> np.ndarray:
    """Tiles of a picture, [n, S, S, 3]."""
    made = processor(grid, side, kind).preprocess(picture, **options)
    return made["pixel_values"][0].transpose(0, 2, 3, 1)


def slots(size: tuple[int, int], grid: str, side: int) -> int:
    """Places in the text, by the processor of text and pictures."""
    made = object.__new__(oracle_text.LlavaNextProcessor)
    made.image_processor = types.SimpleNamespace(image_grid_pinpoints=pinpoints(grid, side))
    made.patch_size, made.num_additional_image_tokens = SIDES[side], 1
    return made._get_number_of_features(size[1], size[0], side, side) - 1
