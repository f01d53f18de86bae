"""The drawn pictures: everything stays in its cell, signs differ in colours and symbol only, photographs need no
network."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import random
import socket
import sys

import numpy as np
import pytest
import skimage.data

from vlguard_jax import errors
from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import pictures

PLAIN = pictures.Scene("square", "red", 0, 0, pictures.Plate("grey", "white"), 8, pictures.PAPER, (0.5, 0.5), 0)


def cells(scene: pictures.Scene) -> np.ndarray:
    """The picture cut into cells: [cell, y, x, channel]."""
    picture = np.asarray(pictures.paint(scene))
    assert picture.shape == (pictures.SIDE, pictures.SIDE, 3) and picture.dtype == np.uint8
    grid = picture.reshape(pictures.GRID, pictures.CELL, pictures.GRID, pictures.CELL, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, pictures.CELL, pictures.CELL, 3)


def test_nothing_leaves_its_cell() -> None:
    """A shape that crossed a patch of the tower would be harder to see than it is meant to be."""
    for shape, shift, cell in itertools.product(language_lib.SHAPES, range(3), range(pictures.GRID**2)):
        sign_cell = (cell + 4) % pictures.GRID**2
        scene = dataclasses.replace(PLAIN, shape=shape, shift=shift, cell=cell, sign_cell=sign_cell)
        touched = [i for i, part in enumerate(cells(scene)) if (part != part[0, 0]).any()]
        assert sorted(touched) == sorted((cell, sign_cell))


def test_a_sign_changes_its_cell_only() -> None:
    rng = random.Random(1)
    for plate in (*pictures.HARMLESS_PLATES, *pictures.FORBIDDEN_PLATES.values()):
        scene = pictures.draw_scene(rng, 5, plate)
        without = cells(dataclasses.replace(scene, plate=None))
        changed = (cells(scene) != without).any(axis=(1, 2, 3))
        assert np.flatnonzero(changed).tolist() == [scene.sign_cell]
        assert {tuple(c) for c in cells(scene)[scene.sign_cell, 1:15, 1:15].reshape(-1, 3)} == {
            pictures.INKS[plate.rim],
            pictures.INKS[plate.body],
        }


def test_symbols_differ_visibly() -> None:
    """Also painted, where symbol and rim have one colour."""
    symbols = pictures.symbols()
    assert len(symbols) >= sum(language_lib.SYMBOLS)
    for a, b in itertools.combinations(("".join(dots) for dots in symbols), 2):
        assert sum(x != y for x, y in zip(a, b, strict=True)) >= 4
    painted = {cells(dataclasses.replace(PLAIN, symbol=i))[PLAIN.sign_cell].tobytes() for i in range(len(symbols))}
    assert len(painted) == len(symbols)


def test_no_colour_alone_is_forbidden() -> None:
    """A rim stands on harmless signs as well, and so does a body: only the pair is forbidden.

    The new category's rim is new.
    """
    harmless = set(pictures.HARMLESS_PLATES)
    rims, bodies = ({getattr(plate, part) for plate in harmless} for part in ("rim", "body"))
    assert set(pictures.FORBIDDEN_PLATES) == set(language_lib.FORBIDDEN)
    for category, plate in pictures.FORBIDDEN_PLATES.items():
        assert plate not in harmless and plate.body in bodies
        assert (plate.rim in rims) == (category != language_lib.NEW_CATEGORY)
    assert pictures.JOINT_PLATE in harmless


def test_scenes_use_every_ground_and_keep_shape_and_sign_apart() -> None:
    rng = random.Random(2)
    scenes = [pictures.draw_scene(rng, 0, PLAIN.plate) for _ in range(500)]
    assert {scene.ground for scene in scenes} == {*pictures.PHOTOGRAPHS, pictures.PAPER}
    assert all(scene.cell != scene.sign_cell for scene in scenes)
    assert {scene.shape for scene in scenes} == set(language_lib.SHAPES) and {s.colour for s in scenes} == set(
        language_lib.COLOURS
    )


def test_photographs_ship_inside_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lies in the installed package, is read anew with the network cut, and differs from the others."""

    def cut(*_: object, **__: object) -> None:
        raise AssertionError("a photograph was looked for in the network")

    monkeypatch.setattr(socket, "socket", cut)
    pictures._photograph.cache_clear()
    shipped = {path.stem for path in pathlib.Path(skimage.data.__file__).parent.iterdir()}
    assert set(pictures.PHOTOGRAPHS) <= shipped
    photographs = {cells(dataclasses.replace(PLAIN, ground=name)).tobytes() for name in pictures.PHOTOGRAPHS}
    assert len(photographs) == len(pictures.PHOTOGRAPHS)


def test_missing_scikit_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures._photograph.cache_clear()
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(errors.UserError, match="scikit-image"):
        pictures.paint(dataclasses.replace(PLAIN, ground="chelsea"))
