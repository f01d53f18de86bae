from __future__ import annotations

import numpy as np
from PIL import Image
import pytest

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax.data import images


def test_square_pad_and_crop(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("RGB", (40, 20), (200, 0, 0)).save(path)
    padded = images.load_image(path, "pad", 20)
    assert padded.shape == (20, 20, 3) and padded.dtype == np.uint8
    assert padded[0, 0].tolist() == [122, 116, 104] and padded[10, 10].tolist() == [200, 0, 0]
    assert (images.load_image(path, "crop", 20) == [200, 0, 0]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (3, 50)])
@pytest.mark.parametrize("mode", images.MODES)
def test_extreme_shapes(tmp_path, size, mode):
    path = stand.write_picture(tmp_path / "a.png", size)
    assert images.load_image(path, mode, 14).shape == (14, 14, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_any_pixel_format_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new(mode, (9, 7)).save(path)
    assert images.load_image(path, "pad", 8).shape == (8, 8, 3)


def test_missing_picture(tmp_path):
    with pytest.raises(errors.UserError, match=r"^.*no\.png: no such picture \(picture of f\.json: record 3\); check the picture folder"):
        images.load_image(tmp_path / "no.png", "pad", 8, origin="f.json: record 3")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_truncated_picture(tmp_path, name):
    path = stand.write_picture(tmp_path / name, (200, 200))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(errors.UserError, match=r"^.*: not a readable picture: .*truncated.*; download it again$"):
        images.load_image(path, "pad", 8)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_non_image(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=r"^.*a\.jpg: not a readable picture: unknown format; download it again$"):
        images.load_image(path, "pad", 8)


def test_unknown_mode(tmp_path):
    path = stand.write_picture(tmp_path / "a.png")
    with pytest.raises(errors.UserError, match=r"^image mode 'crp' is unknown; did you mean 'crop'\?$"):
        images.load_image(path, "crp", 8)


def test_normalize():
    pixels = images.normalize(np.full((1, 2, 2, 3), 255, np.uint8), mean=(0.5, 0.5, 0.0), std=(0.5, 0.25, 1.0))
    np.testing.assert_allclose(pixels[0, 0, 0], [1, 2, 1], rtol=1e-6)
