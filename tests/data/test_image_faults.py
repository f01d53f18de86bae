"""What the check of pictures finds wrong with a file, from its header or by decoding it."""

import io
import pathlib

import numpy as np
from PIL import Image
import pytest

from tests.data import stand
from vlguard_jax import limits
from vlguard_jax.data import images


@pytest.mark.parametrize("format_", images._formats())  # Pillow knows AVIF from 11.3 on
def test_a_good_picture_has_no_fault(format_):
    content = stand.encoded(stand.noise(20, 10), format_)
    assert images.load(content, stand.sees(8), "pad").arrays["images"].shape == (1, 8, 8, 3)
    assert stand.fault(content) == stand.fault(content, decode=True) == ""
    assert stand.fault(content + b"\0" * 500) == ""  # what a camera leaves behind the picture


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_the_header_check_finds_a_cut_file(format_):
    content = stand.encoded(stand.noise(200, 200), format_)
    for length in (len(content) // 2, len(content) - 200):
        assert stand.fault(content[:length]).endswith("; download it again")


def test_only_decoding_finds_damage_in_the_middle():
    content = bytearray(stand.encoded(stand.noise(100, 100)))
    content[len(content) // 2] ^= 255
    assert stand.fault(bytes(content)) == ""
    assert stand.fault(bytes(content), decode=True).endswith("; download it again")


def test_the_header_check_knows_the_bounds(monkeypatch):
    assert stand.fault(b"") == "the file is empty; download it again"
    assert "pixels" in stand.fault(stand.bomb(20_000, 20_000))
    assert "8 bits" in stand.fault(stand.encoded(Image.fromarray(np.zeros((4, 4), np.uint16))))
    monkeypatch.setattr(limits, "PICTURE_SCALED", 1000)
    assert "too long" in stand.fault(stand.encoded(stand.noise(1, 99)), "crop") and not stand.fault(
        stand.encoded(stand.noise(1, 99)), "pad"
    )


def test_the_check_reads_little_of_a_good_file(tmp_path: pathlib.Path):
    path = stand.write_picture(tmp_path / "a.jpg", (900, 900))
    read = 0

    class Counting(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            nonlocal read
            found = super().read(n)
            read += len(found)
            return found

    assert images.look(Counting(path.read_bytes()), stand.sees(336), "pad", decode=False) == (900, 900)
    assert 0 < read < 5000 < path.stat().st_size
