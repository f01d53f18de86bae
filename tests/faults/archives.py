"""Hostile zip files of pictures."""

from __future__ import annotations

import io
import pathlib
import random
import struct
import zipfile
import zlib

from tests.faults import sandbox
from vlguard_jax.data import pictures

CONTENT = {"train/a.jpg": b"first " * 40, "train/b.jpg": b"second " * 30, "c.png": b"third"}
BAD_NAMES = (
    "../outside/picture.png",
    "/etc/passwd",
    "train/../../outside/picture.png",
    "..\\outside\\picture.png",
    "C:\\a.jpg",
    "",
)


def sound(rng: random.Random, more: dict[str, bytes] | None = None) -> bytearray:
    """An archive of CONTENT."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, data in (CONTENT | (more or {})).items():
            archive.writestr(zipfile.ZipInfo(name), data, archive.compression)
    return bytearray(file.getvalue())


def entries(data: bytes) -> list[int]:
    """Where the directory's entries begin."""
    return [i for i in range(len(data) - 46) if data[i : i + 4] == b"PK\1\2"]


def _flipped(rng: random.Random) -> bytes:
    data = sound(rng)
    for _ in range(rng.choice([1, 2, 10])):
        at = rng.randrange(len(data)) if rng.random() < 0.4 else rng.randrange(entries(data)[0], len(data))
        data[at] = rng.choice([0, 0xFF, rng.randrange(256)])
        if not entries(data):
            break
    return bytes(data)


def _truncated(rng: random.Random) -> bytes:
    data = sound(rng)
    return bytes(data[: rng.randrange(len(data))])


def _lied(rng: random.Random) -> bytes:
    """A directory that says something else than the members."""
    data = sound(rng)
    at = rng.choice(entries(data))
    field, size = rng.choice([(16, 4), (20, 4), (24, 4), (42, 4), (28, 2), (30, 2), (10, 2), (8, 2)])
    data[at + field : at + field + size] = rng.choice(
        [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", rng.randbytes(4)]
    )[:size]
    return bytes(data)


def _wide(rng: random.Random) -> bytes:
    """64-bit sizes beyond every file."""
    data = sound(rng)
    at = rng.choice(entries(data))
    name_len = struct.unpack_from("<H", data, at + 28)[0]
    huge = rng.choice([1 << 63, (1 << 64) - 1, 1 << 40, len(data)])
    extra = struct.pack("<HHQQQ", 1, 24, huge, huge, rng.choice([0, huge]))
    data[at + 20 : at + 28] = b"\xff" * 8
    data[at + 42 : at + 46] = b"\xff" * 4
    data[at + 30 : at + 32] = struct.pack("<H", len(extra))
    data[at + 46 + name_len : at + 46 + name_len] = extra
    end = data.rindex(b"PK\5\6")
    size = struct.unpack_from("<L", data, end + 12)[0]
    data[end + 12 : end + 16] = struct.pack("<L", size + len(extra))
    return bytes(data)


def _bomb(rng: random.Random) -> bytes:
    """A member that is a gigabyte, or says so."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    times = rng.choice([1500, 4000])
    data, length = block * times + b"\x03\x00", times << 20
    if rng.random() < 0.5:
        data, length = b"\x03\x00", 0xFFFFFFFE
    name = b"train/a.jpg"
    head = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 0, 0, len(data), length, len(name), 0)
    local = b"PK\3\4" + head + name + data
    entry = b"PK\1\2" + struct.pack("<H", 20) + head + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name
    return local + entry + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(entry), len(local), 0)


def _named(rng: random.Random) -> bytes:
    return bytes(sound(rng, {rng.choice(BAD_NAMES): b"evil", "\u001b[2J.jpg": b"evil", "x" * 5000: b"long"}))


MAKERS = {
    "flipped": _flipped,
    "truncated": _truncated,
    "directory that lies": _lied,
    "64-bit sizes": _wide,
    "bomb": _bomb,
    "names": _named,
}


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """An archive and a name that is asked of it."""
    kind = rng.choice(["sound", *MAKERS])
    path = folder / "train.zip"
    path.write_bytes(sound(rng) if kind == "sound" else MAKERS[kind](rng))
    # out of the archive, never of the disk
    name = rng.choice(list(CONTENT) if kind != "names" or rng.random() < 0.5 else list(BAD_NAMES))
    right: object = CONTENT[name].decode() if name in CONTENT else sandbox.Anything
    if kind == "bomb":
        right = sandbox.Nothing

    def read() -> object:
        store = pictures.open_store(str(path))
        store.stamps([name])
        return store.read(name).decode("latin-1")

    return sandbox.Trial(kind, read, right, must_read=kind == "sound")
