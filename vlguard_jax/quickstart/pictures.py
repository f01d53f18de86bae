"""Pictures of the quickstart's world: a coloured shape and a sign on a piece of a photograph or on plain paper.

A picture is a grid of cells as large as the patches of the tiny tower, and no drawing crosses a cell's border. The
photographs ship with scikit-image and are free of rights (CC0: chelsea, coffee, retina, gravel, grass, brick; public
domain: rocket, hubble_deep_field).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random

from jaxtyping import UInt8
import numpy as np
from PIL import Image
from PIL import ImageDraw

from vlguard_jax import errors
from vlguard_jax import versions
from vlguard_jax.quickstart import language

CELL = 16  # pixels
GRID = 3
SIDE = CELL * GRID

INKS = {
    "red": (214, 40, 40),
    "green": (40, 160, 70),
    "blue": (40, 90, 214),
    "white": (250, 250, 250),
    "purple": (130, 50, 160),
    "black": (0, 0, 0),
    "grey": (110, 110, 110),
    "yellow": (250, 220, 0),
    "orange": (250, 130, 0),
    "magenta": (250, 30, 180),
    "cyan": (0, 220, 240),
}
PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "hubble_deep_field", "retina", "gravel", "grass", "brick")
PHOTOGRAPH_SIDE = 160  # pixels of the shorter side before a piece is cropped
PAPER = "paper"
PAPER_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Plate:
    """The sign's board: colours of its rim and body; the symbol has the rim's colour."""

    rim: str
    body: str


# Certain pairs of body and rim are forbidden, neither alone.
HARMLESS_PLATES = (
    Plate("grey", "white"),
    Plate("yellow", "white"),
    Plate("orange", "white"),
    Plate("magenta", "white"),
    Plate("white", "black"),
    Plate("green", "black"),
)
JOINT_PLATE = Plate("white", "black")
FORBIDDEN_PLATES = {
    "amber": Plate("yellow", "black"),
    "ember": Plate("orange", "black"),
    "plum": Plate("magenta", "black"),
}
FORBIDDEN_PLATES |= {language.NEW_CATEGORY: Plate("cyan", "black")}


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows: a shape, and a sign unless `plate` is None, each in a cell; on a ground (PHOTOGRAPHS or
    PAPER).

    corner: the piece of the photograph, as two fractions; the first is the brightness of paper. shift: pixels to the
    right.
    """

    shape: str
    colour: str
    cell: int
    symbol: int
    plate: Plate | None
    sign_cell: int
    ground: str
    corner: tuple[float, float]
    shift: int


@functools.cache
def symbols() -> tuple[tuple[str, ...], ...]:
    """All symbols: 4 x 4 dots, mirrored, 6 to 10 of them set, any two differing in at least 4."""
    halves = [half for half in itertools.product("01", repeat=8) if 3 <= half.count("1") <= 5]
    chosen: list[str] = []
    for half in random.Random(0).sample(halves, len(halves)):
        dots = "".join(a + b + b + a for a, b in zip(half[::2], half[1::2], strict=True))
        if all(sum(x != y for x, y in zip(dots, other, strict=True)) >= 4 for other in chosen):
            chosen.append(dots)
    return tuple(tuple(dots[i : i + 4] for i in range(0, 16, 4)) for dots in chosen)


def draw_scene(rng: random.Random, symbol: int, plate: Plate | None) -> Scene:
    """A random scene with this sign."""
    cell, sign_cell = rng.sample(range(GRID * GRID), 2)
    ground = PAPER if rng.random() < PAPER_SHARE else rng.choice(PHOTOGRAPHS)
    shape, colour, corner = rng.choice(language.SHAPES), rng.choice(language.COLOURS), (rng.random(), rng.random())
    return Scene(shape, colour, cell, symbol, plate, sign_cell, ground, corner, rng.randrange(3))


@functools.cache
def _photograph(name: str) -> UInt8[np.ndarray, "h w 3"]:
    try:
        from skimage import data
    except ImportError as e:
        raise errors.UserError(
            f"the quickstart's photographs come with scikit-image: {versions.install('quickstart')}"
        ) from e
    picture = Image.fromarray(getattr(data, name)()).convert("RGB")
    scale = PHOTOGRAPH_SIDE / min(picture.size)
    return np.asarray(
        picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    )


def paint(scene: Scene) -> Image.Image:
    """The picture, RGB, SIDE x SIDE pixels."""
    picture = Image.fromarray(_ground(scene))
    pen = ImageDraw.Draw(picture)
    x, y = CELL * (scene.cell % GRID) + 1 + scene.shift, CELL * (scene.cell // GRID) + 1
    _shape(pen, scene.shape, (x, y, x + 11, y + 12), INKS[scene.colour])
    if scene.plate is not None:
        _sign(pen, scene, scene.plate)
    return picture


def _ground(scene: Scene) -> UInt8[np.ndarray, "S S 3"]:
    if scene.ground == PAPER:
        return np.full((SIDE, SIDE, 3), 60 + round(195 * scene.corner[0]), np.uint8)
    photograph = _photograph(scene.ground)
    top, left = (int(share * (size - SIDE)) for share, size in zip(scene.corner, photograph.shape, strict=False))
    piece = photograph[top : top + SIDE, left : left + SIDE].astype(np.uint16)
    return ((piece + 90) // 2).astype(np.uint8)  # paler than the drawing on it


def _shape(pen: ImageDraw.ImageDraw, shape: str, box: tuple[int, int, int, int], fill: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    middle_x, middle_y = (left + right) // 2, (top + bottom) // 2
    if shape == "square":
        pen.rectangle(box, fill=fill)
    elif shape == "disc":
        pen.ellipse(box, fill=fill)
    elif shape == "triangle":
        pen.polygon([(left, bottom), (right, bottom), (middle_x, top)], fill=fill)
    else:
        pen.rectangle((middle_x - 2, top, middle_x + 2, bottom), fill=fill)
        pen.rectangle((left, middle_y - 2, right, middle_y + 2), fill=fill)


def _sign(pen: ImageDraw.ImageDraw, scene: Scene, plate: Plate) -> None:
    x, y = CELL * (scene.sign_cell % GRID) + 1, CELL * (scene.sign_cell // GRID) + 1
    ink = INKS[plate.rim]
    pen.rectangle((x, y, x + 13, y + 13), fill=INKS[plate.body], outline=ink, width=2)
    for row, dots in enumerate(symbols()[scene.symbol]):
        for column, dot in enumerate(dots):
            if dot == "1":
                left, top = x + 3 + 2 * column, y + 3 + 2 * row
                pen.rectangle((left, top, left + 1, top + 1), fill=ink)
