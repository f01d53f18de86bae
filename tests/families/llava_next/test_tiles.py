"""Tiles, slots and rows against transformers."""

from __future__ import annotations

import functools
import sys
import types

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
import torch
from transformers import image_processing_utils
from transformers.models.llava_next import image_processing_pil_llava_next as oracle_pixels
from transformers.models.llava_next import modeling_llava_next as oracle_model

from tests import memory
from tests import source
from tests.data import stand
from tests.families.llava_next import oracle
from vlguard_jax.families import resampling
from vlguard_jax.families.blocks import clip
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava_next import tiles as tiles_lib

SMALL = [(28, grid) for grid in oracle.GRIDS] + [(16, "v1.6")]
ALL = [(336, grid) for grid in oracle.GRIDS] + [(28, "v1.6"), (16, "v1.6"), (16, "all"), (42, "v1.6"), (42, "one")]


@functools.cache
def sizes(side: int, longest: int) -> list[tiles_lib.Size]:
    """200 drawn (width, height), after sizes at the edges: threads, fits, and one pixel beside a fit."""
    edges = [(1, 1), (1, longest), (longest, 1), (2, longest), (longest, 3), (longest, longest)]
    edges += [(wide * side, high * side) for high, wide in oracle.GRIDS["v1.6"]]
    edges += [(2 * side + d, side + e) for d in (-1, 0, 1) for e in (-1, 0, 1)]
    edges += [(72 * 9, 9), (72 * 9 + 1, 9), (9, 72 * 9), (9, 72 * 9 + 1), (20, 2000), (2000, 20)]
    edges = [size for size in edges if max(size) <= longest]
    drawn = np.exp(np.random.default_rng(side).uniform(0, np.log(longest + 1), (200, 2))).astype(int)
    return edges + [tuple(size) for size in drawn.tolist()]


@pytest.mark.parametrize(("side", "grid"), SMALL)
def test_every_pixel_is_the_reference_s(side, grid):
    for i, size in enumerate(sizes(side, 500)):
        picture = stand.noise(*size, i)
        found = tiles_lib.cut(picture, oracle.pinpoints(grid, side), side)
        expected = oracle.pixels(picture, grid, side, do_rescale=False, do_normalize=False)
        assert expected.dtype == np.uint8
        np.testing.assert_array_equal(found, expected, err_msg=str(size))


@pytest.mark.parametrize("side", [336, 28])
def test_normalised_pixels(side):
    grid = "v1.6"
    for i, size in enumerate(sizes(side, 900)[:50]):
        picture = stand.noise(*size, i)
        tiles = tiles_lib.cut(picture, oracle.pinpoints(grid, side), side)
        found = clip.normalize(jnp.asarray(tiles), configs.CLIP_VIT_L_14_336)
        np.testing.assert_allclose(found, oracle.pixels(picture, grid, side), atol=1e-6, rtol=0, err_msg=str(size))


def test_pixels_of_the_reference_with_this_pillow():
    """It takes the rows first, too, for most pictures: the oracle above is transformers' own code."""
    untouched = 0
    for i, (width, height) in enumerate(sizes(28, 500)):
        picture = stand.noise(width, height, i)
        best = tiles_lib.grid((width, height), oracle.pinpoints("v1.6", 28))
        high, wide = image_processing_utils.get_patch_output_size(np.asarray(picture), best, "channels_last")
        if all(
            np.array_equal(
                np.asarray(picture.resize(to, Image.Resampling.BICUBIC)),
                np.asarray(resampling.resize(picture, *to)),
            )
            for to in ((28, 28), (wide, high))
        ):
            untouched += 1
            expected = oracle.pixels(
                picture, "v1.6", 28, oracle_pixels.LlavaNextImageProcessorPil, do_rescale=False, do_normalize=False
            )
            np.testing.assert_array_equal(tiles_lib.cut(picture, oracle.pinpoints("v1.6", 28), 28), expected)
    assert untouched > 60


def packed(size: tiles_lib.Size, tiles: int, grid: str, side: int) -> list[int]:
    """transformers' packing of features numbered from 0, and of a newline with the next number."""
    patches = (side // oracle.SIDES[side]) ** 2
    config = types.SimpleNamespace(
        vision_config=types.SimpleNamespace(image_size=side, patch_size=oracle.SIDES[side]),
        image_grid_pinpoints=[list(pinpoint) for pinpoint in oracle.pinpoints(grid, side)],
    )
    features, _ = oracle_model.LlavaNextModel.pack_image_features(
        types.SimpleNamespace(config=config),
        [torch.arange(tiles * patches).reshape(tiles, patches, 1)],
        torch.tensor([size[::-1]]),
        "default",
        torch.tensor([tiles * patches]),
    )
    return features[0][:, 0].tolist()


@pytest.mark.parametrize(("side", "grid"), ALL)
def test_slots_and_rows_are_the_reference_s(side, grid):
    points, per_side = oracle.pinpoints(grid, side), side // oracle.SIDES[side]
    for size in sizes(side, 20_000):
        rows = tiles_lib.rows(size, points, side, per_side)
        tiles, slots = tiles_lib.count(size, points, side, per_side)
        assert tiles_lib.grid(size, points) == image_processing_utils.select_best_resolution(size[::-1], points)
        assert tiles == oracle_model.image_size_to_num_patches(size[::-1], [*map(list, points)], side)
        assert slots == len(rows) == oracle.slots(size, grid, side), size
        expected = packed(size, tiles, grid, side)
        assert rows.dtype == np.int32 and rows.tolist() == expected, size
        detail = [row for row in expected if per_side**2 <= row < tiles * per_side**2]
        assert bool(tiles_lib.fault(size, points, side, per_side)) == (not detail), size


def test_figures_of_v1_6():
    points = oracle.pinpoints("v1.6", 336)
    assert tiles_lib.grid((640, 480), points) == (672, 672)
    assert tiles_lib.count((640, 480), points, 336, 24) == (5, 576 + 36 * 49)
    assert tiles_lib.count((336, 336), points, 336, 24) == (3, 576 + 24 * 25)
    assert tiles_lib.count((672, 672), points, 336, 24) == (5, 576 + 48 * 49)
    assert tiles_lib.count((1008, 336), points, 336, 24) == (4, 576 + 24 * 73)
    assert tiles_lib.count((336, 1008), points, 336, 24) == (4, 576 + 72 * 25)


def test_long_and_narrow():
    for width, height in ((7200, 100), (100, 7200)):
        assert tiles_lib.fault((width, height), oracle.pinpoints("v1.6", 336), 336, 24) == ""
    for width, height in ((7201, 100), (100, 7201), (500, 1)):
        text = "are too long and narrow to be cut into tiles; crop it"
        assert tiles_lib.fault((width, height), oracle.pinpoints("v1.6", 336), 336, 24) == text


@pytest.mark.parametrize("size", [(20_000, 50), (50, 20_000)])
def test_a_thread_like_picture_takes_little_memory(size):
    script = (
        "from PIL import Image; from vlguard_jax.families.llava_next import tiles\n"
        f"points = {oracle.pinpoints('v1.6', 336)}; picture = Image.new('RGB', {size}, (9, 8, 7))\n"
        "assert (tiles.cut(picture, points, 336)[0] == [9, 8, 7]).all()\n"
    )
    done, peak = memory.run([sys.executable, "-c", script], cwd=source.ROOT)
    assert done.returncode == 0, done.stderr
    assert 10 * 2**20 < peak < 150 * 2**20
