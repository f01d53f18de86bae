from __future__ import annotations

import io
import pathlib
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image
from PIL import PngImagePlugin
import pytest

from tests import odd_files
from tests import source
from tests.data import stand
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.data import images
from vlguard_jax.data import pictures


def pixels(picture: str | pathlib.Path | bytes, mode: str, side: int, **names) -> np.ndarray:
    """The picture as LLaVA-1.5 sees it."""
    (square,) = images.load(picture, stand.sees(side), mode, **names).arrays["images"]
    return square


def test_path_and_content_are_the_same(tmp_path):
    path = stand.write_picture(tmp_path / "a.jpg", (50, 40))
    for picture in (str(path), path.read_bytes()):
        np.testing.assert_array_equal(pixels(picture, "crop", 14), pixels(path, "crop", 14))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_any_pixel_format_becomes_rgb(mode):
    picture = stand.noise(9, 7).convert(mode)
    expected = np.asarray(picture.convert("RGB").crop((1, 0, 8, 7)))
    np.testing.assert_array_equal(
        pixels(stand.encoded(picture, "TIFF" if mode == "CMYK" else "PNG"), "crop", 7), expected
    )


def test_cmyk_jpeg():
    picture = stand.encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert pixels(picture, "pad", 8)[4, 4].tolist() == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.parametrize(
    ("kind", "format_"), [(np.uint16, "PNG"), (np.uint16, "TIFF"), (np.int32, "TIFF"), (np.float32, "TIFF")]
)
def test_deep_grey_is_refused(kind, format_):
    deep = stand.encoded(Image.fromarray(np.full((6, 6), 1000, kind)), format_)
    with pytest.raises(
        errors.UserError,
        match=r"^x: not a readable picture: more than 8 bits of grey \(.*\), .*; convert it to 8 bits$",
    ):
        pixels(deep, "pad", 6, name="x")


def png16(values: list[int]) -> bytes:
    """A 1 x 1 PNG of 16-bit red, green and blue, which Pillow cannot write."""
    header = (1).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    pixels = zlib.compress(b"\0" + b"".join(v.to_bytes(2, "big") for v in values))
    return (
        b"\x89PNG\r\n\x1a\n"
        + stand.png_chunk(b"IHDR", header)
        + stand.png_chunk(b"IDAT", pixels)
        + stand.png_chunk(b"IEND", b"")
    )


def test_16_bits_of_colour_keep_their_upper_8():
    assert (pixels(png16([0x12FF, 0x8000, 0xFFFF]), "pad", 3) == [0x12, 0x80, 0xFF]).all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # pytest undoes the module's own filter
def test_transparency_is_dropped():
    rgba = np.full((6, 6, 4), [10, 20, 30, 0], np.uint8)
    assert (pixels(stand.encoded(Image.fromarray(rgba)), "pad", 6) == [10, 20, 30]).all()
    palette = Image.new("P", (6, 6))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    for transparency in (0, bytes([0, 128])):
        found = pixels(stand.encoded(palette, transparency=transparency), "pad", 6)
        assert (found == [10, 20, 30]).all()


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(format_):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    lossless = {"lossless": True} if format_ == "WEBP" else {}
    animation = stand.encoded(frames[0], format_, save_all=True, append_images=frames[1:], **lossless)
    with Image.open(io.BytesIO(animation)) as file:
        assert file.n_frames == 2
    assert (pixels(animation, "pad", 8) == [255, 0, 0]).all()


def test_exif_rotation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    picture = stand.noise(20, 10)
    turned, plain = (stand.encoded(picture, "JPEG", **options) for options in ({"exif": exif}, {}))
    assert turned != plain
    np.testing.assert_array_equal(pixels(turned, "crop", 10), pixels(plain, "crop", 10))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((20_000, 20_000), r"more than 67,108,864 pixels; scale it down"),
        ((40_000, 10), r"40000 x 10 pixels, more than 67,108,864 or a side above 16,384; scale it down"),
        ((10, 40_000), r"10 x 40000 pixels, more than .*"),
        ((1, 16_385), r"1 x 16385 pixels, more than .*"),
        ((8192, 8193), r"8192 x 8193 pixels, more than 67,108,864 or .*"),
        ((0, 7), r".*"),
    ],
)
def test_too_many_pixels(size, text):
    with pytest.raises(errors.UserError, match=rf"^x: not a readable picture: {text}$"):
        pixels(stand.bomb(*size), "pad", 14, name="x")


def test_pillow_s_warnings_stay_away():
    """Neither a large picture nor odd transparency or metadata prints Python's warnings, which name no file."""
    script = (
        "import io; from PIL import Image\n"
        "from vlguard_jax.data import images; from vlguard_jax.families import table\n"
        "Image.MAX_IMAGE_PIXELS = 50\n"
        "p = Image.new('P', (8, 8)); out = io.BytesIO(); p.save(out, 'PNG', transparency=bytes([0, 9]))\n"
        "model = table.PRESETS['llava-v1.5-7b']\n"
        "print(images.load(out.getvalue(), model, 'pad').arrays['images'].shape)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], cwd=source.ROOT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("(1, 336, 336, 3)\n", "")


def test_missing_picture(tmp_path):
    with pytest.raises(
        errors.UserError,
        match=r"^.*no\.png: no such picture \(picture of f\.json: record 3\); check the picture folder",
    ):
        pixels(tmp_path / "no.png", "pad", 8, origin="f.json: record 3")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "a.tiff"])
def test_truncated_picture(tmp_path, name):
    path = stand.write_picture(tmp_path / name, (200, 200))
    whole = path.read_bytes()
    for length in (3000, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        with pytest.raises(errors.UserError, match=r"^.*: not a readable picture: [^\n]+; download it again$"):
            pixels(path, "pad", 8)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty"),
        (
            b"<html>not found</html>",
            "this is a web page, perhaps of a login or an error, instead of the file; download the file again",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "this is a git-lfs pointer instead of the file; fetch the file",
        ),
        (b"%PDF-1.7\n", "this is a PDF; name the right file"),
        (b"PK\3\4" + b"0" * 40, "this is a zip archive; unpack it"),
        (b"\x89PNG\r\n\x1a\n", "unknown format; download it again"),
        (b"\xff\xd8\xff", "unknown format; download it again"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "unknown format; download it again"),
    ],
)
def test_non_image(tmp_path, content, text):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=rf"^.*a\.jpg: not a readable picture: {text}[^\n]*$"):
        pixels(path, "pad", 8)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("kind", ["text", "texts", "profile"])
def test_more_metadata_than_pillow_reads(kind, decode):
    """Downloading it again would not help."""
    if kind == "profile":
        content = stand.encoded(stand.noise(8, 8), icc_profile=b"x" * (1 << 21))
    else:
        notes = PngImagePlugin.PngInfo()
        for i in range(1 if kind == "text" else 80):
            notes.add_text(f"note {i}", "x" * (1 << 21 if kind == "text" else 1_000_000), zip=True)
        content = stand.encoded(stand.noise(8, 8), pnginfo=notes)
    wrong = "its metadata (texts or colour profile) take more than 1 MB; save it again without them"
    assert stand.fault(content, decode=decode) == wrong


def test_unreadable_file(tmp_path):
    with pytest.raises(errors.UserError, match=r": not a readable picture: Is a directory$"):
        pixels(tmp_path, "pad", 8)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pytest undoes the module's own filter
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_damaged_bytes_never_end_in_anything_but_a_user_error(format_):
    whole = stand.encoded(stand.noise(40, 30), format_)
    rng = np.random.default_rng(3)
    for _ in range(150):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 8):
            damaged[at] = rng.integers(256)
        try:
            assert pixels(bytes(damaged), "pad", 8, name="x").shape == (8, 8, 3)
        except errors.UserError as e:
            assert str(e).startswith("x: not a readable picture: ") and "\n" not in str(e)


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A small file of a progressive JPEG that says it is of this size, its last scan repeated."""
    data = stand.encoded(stand.noise(16, 16), "JPEG", progressive=True)
    size = data.index(b"\xff\xc2") + 5
    last = data.rindex(b"\xff\xda")
    return (
        data[:size]
        + height.to_bytes(2, "big")
        + width.to_bytes(2, "big")
        + data[size + 4 : last]
        + data[last:-2] * scans
        + data[-2:]
    )


def test_scans_are_counted_before_they_are_decoded():
    with pytest.raises(
        errors.UserError, match=r"^x: not a readable picture: 8192 x 8192 pixels in 1,\d\d\d scans; save it again$"
    ):
        pixels(many_scans(8192, 8192, 1000), "pad", 14, name="x")
    assert "scans; save it again" in stand.fault(many_scans(8192, 8192, 1000), decode=True)
    assert pixels(many_scans(16, 16, 100), "pad", 14).shape == (14, 14, 3)


@pytest.mark.parametrize("format_", images.COSTLY)
def test_costly_decoders_get_half_of_the_pixels(format_, monkeypatch):
    monkeypatch.setattr(limits, "PICTURE_PIXELS", 1000)
    assert pixels(stand.encoded(stand.noise(20, 25), format_), "pad", 14).shape == (14, 14, 3)
    with pytest.raises(errors.UserError, match=r"^x: not a readable picture: 20 x 26 pixels, more than 500 or a side"):
        pixels(stand.encoded(stand.noise(20, 26), format_), "pad", 14, name="x")


@pytest.mark.parametrize(
    "read",
    [lambda path: pixels(path, "pad", 14), lambda path: pictures.open_store(str(path.parent)).read("a.png")],
)
def test_what_is_no_file_is_refused_unread(tmp_path, read):
    for message in odd_files.at(tmp_path / "a.png", b"RIFF\xff\xff\xff\xffWEBP"):
        with pytest.raises(errors.UserError, match=rf"a\.png{message}"):
            read(tmp_path / "a.png")


def test_the_check_of_pictures_opens_no_sparse_file(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(1 << 36)
    with pytest.raises(errors.UserError, match=r"at most 268,435,456 are read"):
        pictures.open_store(str(tmp_path)).open("a.png")
