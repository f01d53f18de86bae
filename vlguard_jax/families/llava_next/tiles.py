"""The tiles of LLaVA-NeXT's pictures, and the order of their features in the text.

A picture is given twice: as a whole, resized to one square tile, and in detail, resized to the best of a few
resolutions (the pinpoints) and split into square tiles. In the text the whole picture's features come first; then those
of the detailed tiles, joined to one map, without rows or columns that are only padding, with the learned
`image_newline` after each row.

Source: transformers 5.23, models/llava_next/{image_processing_pil,processing,modeling}_llava_next.py and
image_processing_utils.py. With any Pillow, the pixels are those that it computes with Pillow up to version 12
(families/resampling.py). Padding is black, 0 before normalising. A resized side in pixels is rounded up, a side of the
map down. Transparency is dropped, as in LLaVA's own code, where transformers composes such a picture onto white.

Here `size` is a picture's (width, height) in pixels, as Pillow has it; `pinpoints` are (height, width) in pixels, as
config.json has them, each a multiple of the tile's side.
"""

from __future__ import annotations

import math

from jaxtyping import Int32, UInt8
import numpy as np
from PIL import Image

from vlguard_jax.families import resampling

Size = tuple[int, int]
Pinpoints = tuple[Size, ...]


def grid(size: Size, pinpoints: Pinpoints) -> Size:
    """The (height, width) of `pinpoints` that shows most of the picture's pixels; of equal ones the least padded.

    Source: image_processing_utils.py, select_best_resolution.
    """
    width, height = size

    def worth(pinpoint: Size) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - pinpoint[0] * pinpoint[1]

    return max(pinpoints, key=worth)


def count(size: Size, pinpoints: Pinpoints, side_pixels: int, patches_per_side: int) -> tuple[int, int]:
    """(number of tiles, number of slots in the text: `len(rows(...))`, without making the rows)."""
    high, wide, lines, columns = _layout(size, pinpoints, side_pixels, patches_per_side)
    return 1 + high * wide, patches_per_side**2 + len(lines) * (len(columns) + 1)


def rows(size: Size, pinpoints: Pinpoints, side_pixels: int, patches_per_side: int) -> Int32[np.ndarray, " slots"]:
    """For each slot of the picture in the text, the row of its feature.

    The features are those of all tiles, concatenated, [tiles * P, D], P = `patches_per_side` squared; row `tiles * P`,
    after the last, is `image_newline`.

    Source: modeling_llava_next.py, pack_image_features and unpad_image.
    """
    high, wide, lines, columns = _layout(size, pinpoints, side_pixels, patches_per_side)
    side, patches = patches_per_side, patches_per_side**2
    y, x = np.asarray(lines, np.int32)[:, None], np.asarray(columns, np.int32)
    tile = 1 + y // side * wide + x // side
    row = tile * patches + y % side * side + x % side
    ended = np.pad(row, ((0, 0), (0, 1)), constant_values=(1 + high * wide) * patches)
    return np.concatenate([np.arange(patches, dtype=np.int32), ended.ravel()])


def fault(size: Size, pinpoints: Pinpoints, side_pixels: int, patches_per_side: int) -> str:
    """Why the family cannot take a picture of this size, "" if it can.

    The reference accepts a picture so long and narrow that no row or column of its map would be left, and drops all its
    tiles but the first.
    """
    _, _, lines, columns = _layout(size, pinpoints, side_pixels, patches_per_side)
    return "" if lines and columns else "are too long and narrow to be cut into tiles; crop it"


def cut(picture: Image.Image, pinpoints: Pinpoints, side_pixels: int) -> UInt8[np.ndarray, "n S S 3"]:
    """The picture (RGB) as the tower reads it, not normalised: as a whole, then in detail, row by row.

    Source: image_processing_pil_llava_next.py, get_image_patches.
    """
    side = side_pixels
    whole = np.asarray(resampling.resize(picture, side, side))[None]
    height, width = grid(picture.size, pinpoints)
    fitted = np.asarray(resampling.resize(picture, *_fitted(picture.size, (width, height))))
    above, left = (height - fitted.shape[0]) // 2, (width - fitted.shape[1]) // 2
    padded = np.zeros((height, width, 3), np.uint8)
    padded[above : above + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    cut = padded.reshape(height // side, side, width // side, side, 3).swapaxes(1, 2)
    return np.concatenate([whole, cut.reshape(-1, side, side, 3)])


def _fitted(size: Size, into: Size) -> Size:
    """The (width, height) of the picture scaled to fit `into`; get_patch_output_size, image_processing_utils.py."""
    by_width, by_height = into[0] / size[0], into[1] / size[1]
    if by_width < by_height:
        return into[0], min(math.ceil(size[1] * by_width), into[1])
    return min(math.ceil(size[0] * by_height), into[0]), into[1]


def _layout(size: Size, pinpoints: Pinpoints, side_pixels: int, patches_per_side: int) -> tuple[int, int, range, range]:
    """Tiles of the detailed picture, vertically and horizontally; rows and columns of its map that are kept."""
    width, height = size
    high, wide = (pixels // side_pixels for pixels in grid(size, pinpoints))
    lines, columns = high * patches_per_side, wide * patches_per_side
    above = left = 0
    if width / height > columns / lines:
        above = (lines - int(round(height * (columns / width), 7))) // 2
    else:
        left = (columns - int(round(width * (lines / height), 7))) // 2
    return high, wide, range(above, lines - above), range(left, columns - left)
