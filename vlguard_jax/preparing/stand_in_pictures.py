"""Drawn pictures in place of VLGuard's gated ones, so that a whole run can be rehearsed before access is granted.

A picture shows only its record's category or "safe": by colour, shape and written name. Size, shade and position follow
from the record's id. They are no benchmark: everything made from them is marked `stand_in`.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import hashlib
import pathlib

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from vlguard_jax.data import vlguard

SAFE = "safe"
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_LOOKS = {
    SAFE: ((70, 160, 90), "circle"),
    "privacy": ((60, 90, 200), "square"),
    "risky behavior": ((200, 50, 50), "triangle"),
    "deception": ((220, 170, 40), "diamond"),
    "discrimination": ((140, 60, 170), "cross"),
}
_SHAPES = {  # corners on a square from -1 to 1
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "triangle": ((0, -1), (1, 1), (-1, 1)),
    "diamond": ((0, -1), (1, 0), (0, 1), (-1, 0)),
    "cross": (
        *((-0.4, -1), (0.4, -1), (0.4, -0.4), (1, -0.4), (1, 0.4), (0.4, 0.4)),
        *((0.4, 1), (-0.4, 1), (-0.4, 0.4), (-1, 0.4), (-1, -0.4), (-0.4, -0.4)),
    ),
}


def draw(item: vlguard.Item) -> Image.Image:
    """The picture of one record; the same record always gives the same pixels."""
    name = SAFE if item.safe else str(item.category)
    colour, shape = _LOOKS.get(name, ((110, 110, 110), "square"))
    rng = np.random.default_rng(np.frombuffer(hashlib.sha256(f"{item.id}\n{item.image}".encode()).digest(), np.uint32))
    width, height = (int(side) for side in rng.integers(112, 176, 2))
    shade = tuple(int(channel) for channel in rng.integers(215, 256, 3))
    picture = Image.new("RGB", (width, height), shade)
    pen = ImageDraw.Draw(picture)
    radius = min(width, height) * rng.uniform(0.30, 0.38)
    # The evaluation crops the centre of a picture, so the shape stays near it.
    x, y = width / 2 + rng.uniform(-6, 6), height / 2 + rng.uniform(-6, 6)
    fill = tuple(int(np.clip(channel + rng.integers(-20, 21), 0, 255)) for channel in colour)
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    else:
        pen.polygon([(x + radius * dx, y + radius * dy) for dx, dy in _SHAPES[shape]], fill=fill)
    pen.text(
        (x, y),
        name,
        font=_font(int(min(width, height) / 6)),
        fill=(255, 255, 255),
        anchor="mm",
        stroke_width=1,
        stroke_fill=(0, 0, 0),
    )
    return picture


def write_all(items: Sequence[vlguard.Item], folder: pathlib.Path) -> int:
    """Draw the pictures of all records into `folder` under their own names (JPEG or PNG by extension); returns their
    number."""
    paths = {item.image: item for item in reversed(items)}  # two records may share a picture: the first one is drawn
    for path, item in paths.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draw(item).save(target)
    return len(paths)


@functools.cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
