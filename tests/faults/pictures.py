"""Hostile pictures: damaged, enormous in a few bytes, or no file at all."""

from __future__ import annotations

import io
import os
import pathlib
import random
import struct
import zlib

import numpy as np
from PIL import Image
from PIL import PngImagePlugin

from tests.faults import sandbox
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import images
from vlguard_jax.data import pictures
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava import pictures as llava_pictures

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
SIDE = 28
TEXT = configs.TextConfig(100, 8, 2, 2, 1, 4, 12, 1e-5, 1e4)
MODEL = llava_config.LlavaConfig(TEXT, configs.VisionConfig(SIDE, 14, 6, 3, 2, 10, 1e-5, "gelu"), "mlp2x_gelu")
TOO_LARGE = ((1, 32768), (32768, 1), (30000, 30000), (65535, 65535), (1 << 31, 1), (12000, 12000), (1, 1 << 30))
SIZES = (*TOO_LARGE, (1, 16384), (16384, 1), (8192, 8192), (4096, 16384))  # the rest is as large as pictures may be
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch ran) system\n"
OTHER = (b"", POSTSCRIPT, b"<svg/>", b"P7\n", b"\0" * 99)


def sound(rng: random.Random, format_: str) -> bytes:
    """A small picture."""
    pixels = np.random.default_rng(rng.randrange(1 << 30)).integers(
        0, 256, (rng.randrange(1, 40), rng.randrange(1, 40), 3), np.uint8
    )
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format_)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One of PNG's."""
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png(width: int, height: int, body: bytes, *, depth: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    """A PNG file around compressed rows."""
    head = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _swollen(rng: random.Random) -> bytes:
    """Few bytes, many pixels."""
    width, height = rng.choice(SIZES)
    rows = min(height, 2000)
    return png(width, height, zlib.compress(bytes((1 + min(width, 40000)) * rows), 9), colour=rng.choice([0, 2]))


def _scans(rng: random.Random) -> bytes:
    """A progressive JPEG whose last scan is repeated, of any claimed size."""
    file = io.BytesIO()
    Image.effect_noise((16, 16), 50).convert("RGB").save(file, "JPEG", progressive=True)
    data = file.getvalue()
    size, last = data.index(b"\xff\xc2") + 5, data.rindex(b"\xff\xda")
    claimed = struct.pack(">HH", *rng.choice([(16, 16), (8192, 8192), (2000, 3000), (65535, 65535), (16384, 4096)]))
    return data[:size] + claimed + data[size + 4 : last] + data[last:-2] * rng.choice([1, 20, 200, 5000]) + data[-2:]


def _texts(rng: random.Random) -> bytes:
    """Metadata that swells when it is read."""
    info = PngImagePlugin.PngInfo()
    for _ in range(rng.choice([1, 50])):
        info.add_text("k", "x" * rng.choice([1 << 10, 1 << 21]), zip=True)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _frames(rng: random.Random) -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), (i % 256, 0, 0)) for i in range(400)]
    frames[0].save(file, rng.choice(["GIF", "TIFF"]), save_all=True, append_images=frames[1:])
    return file.getvalue()


def _damaged(rng: random.Random) -> bytes:
    data = bytearray(sound(rng, rng.choice(FORMATS)))
    for _ in range(rng.choice([1, 1, 3, 20])):
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(64, len(data)))
        if rng.random() < 0.6:
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif rng.random() < 0.5:
            del data[at : at + rng.randrange(1, 9)]
        else:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        if not data:
            break
    return bytes(data)


def _no_file(rng: random.Random, path: pathlib.Path) -> str:
    """What is no regular file, under a picture's name."""
    kind = rng.choice(["fifo", "endless device", "folder", "loop", "sparse", "socket"])
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless device":
        path.symlink_to(rng.choice(["/dev/zero", "/dev/urandom", "/dev/full"]))
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.write(rng.choice([b"", b"RIFF\xff\xff\xff\xffWEBP", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]))
            file.truncate(1 << 36)
    else:
        path.symlink_to("/proc/self/mem")
    return kind


def _shape(picture: types.Picture) -> list[int]:
    return list(picture.arrays["images"][0].shape)


def _from_store(path: pathlib.Path, mode: str) -> list[int]:
    content = pictures.open_store(str(path.parent)).read(path.name)
    return _shape(images.load(content, MODEL, mode, name=path.name))


def _checked(path: pathlib.Path, mode: str) -> list[int]:
    """What the check lets through can be read."""
    with pictures.open_store(str(path.parent)).open(path.name) as file:
        try:
            images.look(file, MODEL, mode, decode=True)
        except images.Fault as e:
            raise errors.UserError(str(e)) from e
    return _from_store(path, mode)


WAYS = {
    "file": lambda path, mode: _shape(images.load(path, MODEL, mode)),
    "store": _from_store,
    "check": _checked,
}


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One picture, read in one of the two modes."""
    path, mode = folder / "a.png", rng.choice(llava_pictures.MODES)
    kind = rng.choice(
        [
            "sound",
            "damaged",
            "damaged",
            "damaged",
            "truncated",
            "swollen",
            "scans",
            "texts",
            "frames",
            "no file",
            "other",
        ]
    )
    right: object = [SIDE, SIDE, 3]
    if kind == "no file":
        kind, right = f"no file: {_no_file(rng, path)}", sandbox.Nothing
    elif kind == "sound":
        path.write_bytes(sound(rng, rng.choice(FORMATS)))
    elif kind == "truncated":
        data = sound(rng, rng.choice(FORMATS))
        path.write_bytes(data[: rng.randrange(len(data))])
    elif kind == "other":
        path.write_bytes(
            rng.choice(
                [
                    b"",
                    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch ran) system\n",
                    b"<svg/>",
                    b"P7\n",
                    b"\0" * 99,
                ]
            )
        )
        right = sandbox.Nothing
    else:
        path.write_bytes(
            {"damaged": _damaged, "swollen": _swollen, "scans": _scans, "texts": _texts, "frames": _frames}[kind](rng)
        )
    way = rng.choice(list(WAYS))
    return sandbox.Trial(f"{kind} ({mode}, {way})", lambda: WAYS[way](path, mode), right, must_read=kind == "sound")
