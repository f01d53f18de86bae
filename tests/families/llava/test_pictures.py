"""LLaVA-1.5's squares: every pixel is the reference's, and what they take."""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image
import pytest

from tests import memory
from tests import source
from tests.data import stand
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import types
from vlguard_jax.data import images
from vlguard_jax.families import family
from vlguard_jax.families.llava import pictures

MEAN = (0.48145466, 0.4578275, 0.40821073)  # openai/clip-vit-large-patch14-336, preprocessor_config.json


def reference(picture: Image.Image, mode: str, size: int) -> np.ndarray:
    """The reference's steps one after the other, each pass over the whole picture, rows first."""
    if mode == "pad" and picture.width != picture.height:
        side = max(picture.size)
        square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in MEAN))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        picture = square
    short, long = sorted(picture.size)
    other = int(size * long / short)
    width, height = (size, other) if picture.width <= picture.height else (other, size)
    picture = picture.resize((width, picture.height), Image.Resampling.BICUBIC).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def read(picture: Image.Image, mode: str, size: int) -> np.ndarray:
    arrays = pictures.read(stand.sees(size), mode, picture, types.Extent(0, 1))
    assert list(arrays) == ["images"] and len(arrays["images"]) == 1
    return arrays["images"][0]


def test_square_pad_and_crop():
    picture = Image.new("RGB", (40, 20), (200, 0, 0))
    padded = read(picture, "pad", 20)
    assert padded.shape == (20, 20, 3) and padded.dtype == np.uint8
    assert padded[0, 0].tolist() == [122, 116, 104] and padded[10, 10].tolist() == [200, 0, 0]
    assert (read(picture, "crop", 20) == [200, 0, 0]).all()


@pytest.mark.parametrize("strip", [pictures.STRIP, 1000], ids=["whole", "strips"])
@pytest.mark.parametrize("mode", pictures.MODES)
def test_every_pixel_is_the_reference_s(monkeypatch, mode, strip):
    monkeypatch.setattr(pictures, "STRIP", strip)
    sizes = [
        (1, 1),
        (1, 30),
        (30, 1),
        (3, 50),
        (64, 336),
        (348, 699),
        (90, 57),
        (57, 90),
        (56, 200),
        (200, 56),
        (56, 56),
        (41, 40),
    ]
    sizes += [tuple(pair) for pair in np.random.default_rng(7).integers(1, 300, (60, 2)).tolist()]
    for i, (width, height) in enumerate(sizes):
        picture = stand.noise(width, height, i)
        for size in (14, 56, 224):
            np.testing.assert_array_equal(
                read(picture, mode, size), reference(picture, mode, size), err_msg=f"{width} x {height} at {size}"
            )


def test_long_and_narrow(monkeypatch):
    """Computed up to the bound, refused above it, and padded in any case."""
    monkeypatch.setattr(limits, "PICTURE_SCALED", 14 * 14 * 200)

    def load(picture: Image.Image, mode: str) -> np.ndarray:
        return images.load(stand.encoded(picture), stand.sees(14), mode, name="x").arrays["images"][0]

    for width, height in ((200, 1), (1, 200)):
        picture = stand.noise(width, height)
        np.testing.assert_array_equal(load(picture, "crop"), reference(picture, "crop", 14))
    for width, height in ((201, 1), (1, 201)):
        picture = stand.noise(width, height)
        with pytest.raises(
            errors.UserError,
            match=rf"^x: .*: {width} x {height} pixels are too long and narrow to cut out the middle; crop it$",
        ):
            load(picture, "crop")
        np.testing.assert_array_equal(load(picture, "pad"), reference(picture, "pad", 14))


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1)])
def test_a_thread_like_picture_takes_little_memory(size):
    """0.9 GB in mode "crop" if it were scaled at once."""
    script = (
        "import io; from PIL import Image\n"
        "from vlguard_jax.data import images; from vlguard_jax.families import table\n"
        "model = table.PRESETS['llava-v1.5-7b']\n"
        f"out = io.BytesIO(); Image.new('RGB', {size}, (9, 8, 7)).save(out, 'PNG')\n"
        "made = {mode: images.load(out.getvalue(), model, mode).arrays['images'] for mode in ('pad', 'crop')}\n"
        "assert made['pad'].shape == (1, 336, 336, 3)\n"
        "assert (made['crop'] == [9, 8, 7]).all()\n"
    )
    done, peak = memory.run([sys.executable, "-c", script], cwd=source.ROOT)
    assert done.returncode == 0, done.stderr
    assert 10 * 2**20 < peak < 300 * 2**20


def test_a_picture_takes_the_tower_s_patches_whatever_its_size():
    sizes = [types.Size(1, 1), types.Size(9, 4000), types.Size(336, 336)]
    assert pictures.extents(stand.sees(336), sizes) == [(576, 1)] * 3
    assert pictures.extents(stand.sees(20, patch=6), sizes[:2]) == [(9, 1)] * 2  # a rest is not read
    assert pictures.extents(stand.sees(), []) == []


def test_squares_lie_one_after_the_other_with_nothing_behind():
    model, squares = stand.sees(14), [stand.noise(14, 14, i) for i in range(2)]
    loaded = [
        types.Picture(pictures.read(model, "pad", one, types.Extent(1, 1)), types.Extent(1, 1)) for one in squares
    ]
    pooled = pictures.pool(model, loaded, family.Room(3, 3))
    expected = [np.asarray(one) for one in squares] + [np.zeros((14, 14, 3))]
    assert list(pooled) == ["images"] and pooled["images"].dtype == np.uint8
    np.testing.assert_array_equal(pooled["images"], expected)
    np.testing.assert_array_equal(pictures.show(model, pooled, 1), expected[1])
    assert pictures.pool(model, [], family.Room(0, 0))["images"].shape == (0, 14, 14, 3)


def test_plain_pictures_need_no_resizing():
    assert pictures.plain(stand.sees(336)) == (336, 336)
