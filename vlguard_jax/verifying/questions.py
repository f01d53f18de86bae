"""The prompts that a golden folder holds: harmless questions, most about drawn pictures of sizes that no tower has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL import ImageDraw

NEW = 16  # tokens of an answer, at most
LAST = 8  # places at the end of a prompt whose logits are kept


class Question(NamedTuple):
    """size: of its picture in pixels; None without one."""

    name: str
    text: str
    size: tuple[int, int] | None


# Pillow 13 resizes the columns of a picture first where that is less work, and then other pixels come out (families/
# resampling.py): it is never less for wide pictures, nor for tall ones whose scaled height is a whole number.
QUESTIONS = (
    Question("text", "Name three colours of the rainbow, and one that it lacks.", None),
    Question("square", "What is shown in this image?", (97, 97)),
    Question("wide", "Which shapes do you see? Count them: 1, 2, 3 ...\n- left\n- right", (190, 71)),
    Question("tall", "Größe und Farbe? \u65e5\u672c\u8a9e, caf\u00e9, \u201cquoted\u201d  text.", (64, 128)),
)


def drawn(size: tuple[int, int]) -> np.ndarray:
    """u8[H, W, 3]: a slope of colours with a disc, a square and some lines on it."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    picture = Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((width // 8, height // 8, width // 2, height // 2), fill=(220, 40, 40))
    pen.rectangle((width // 2, height // 2, width * 7 // 8, height * 7 // 8), fill=(30, 60, 200))
    for i in range(0, width, 7):
        pen.line((i, 0, width - i, height), fill=(i % 256, 255, 128))
    return np.asarray(picture)
