"""Hostile golden folders, read by `verify`: a record with one thing wrong, and arrays of other kinds, sizes and places
under a hash that is right."""

from __future__ import annotations

import json
import pathlib
import random

import numpy as np

from tests.faults import documents
from tests.faults import sandbox
from tests.verifying import made
from vlguard_jax.verifying import golden

_ARRAYS = ("flipped", "truncated", "header", "pickle", "huge shape", "link")


def _read(folder: pathlib.Path) -> object:
    """What a comparison would take: the arrays, with a picture of bounded size."""
    found = golden.read(folder)
    for one in found.answers:
        assert one.picture is None or one.picture.nbytes < 1 << 30
        assert np.isfinite(one.logits).all() and one.logits.shape[1] == found.record.rows
    return len(found.answers)


def _header(rng: random.Random, data: bytes) -> bytes:
    """The same arrays under a header with one thing wrong: overlapping or huge places, other types, odd names."""
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    name = rng.choice([key for key in head if key != "__metadata__"])
    entry = head[name]
    change = rng.randrange(6)
    if change == 0:
        entry["data_offsets"] = [entry["data_offsets"][0] and 0, entry["data_offsets"][1] + 4]
    elif change == 1:
        entry["data_offsets"] = [1 << 62, (1 << 62) + 4]
    elif change == 2:
        entry["shape"] = [1 << 40, 1 << 30]
    elif change == 3:
        entry["dtype"] = rng.choice(["F64", "I64", "BOOL", "F8_E4M3", "../x", 7])
    elif change == 4:
        head["../../outside/picture.png"] = head.pop(name)
    else:
        entry["shape"] = [*entry["shape"], rng.choice([0, 2, -1])]
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A golden folder with one file changed; the record's hash follows the arrays but where they are flipped."""
    where = made.write(folder / "golden")
    if rng.random() < 0.1:
        return sandbox.Trial("sound", lambda: _read(where), 2, must_read=True)
    record, arrays = where / golden.RECORD, where / golden.ARRAYS
    if rng.random() < 0.5:
        what, data = documents.change(rng, json.loads(record.read_bytes()))
        record.write_bytes(data)
        return sandbox.Trial(f"golden.json: {what}", lambda: _read(where), sandbox.Anything)
    what, data = rng.choice(_ARRAYS), arrays.read_bytes()
    if what == "flipped":
        at = rng.randrange(len(data))
        data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    elif what == "truncated":
        data = data[: rng.randrange(len(data))]
    elif what == "header":
        data = _header(rng, data)
    elif what == "pickle":
        data = b"\x80\x04cposix\nsystem\n(X\x09\0\0\0touch rantR."
    elif what == "huge shape":
        data = (1 << 40).to_bytes(8, "little") + data[8:]
    else:
        arrays.unlink()
        arrays.symlink_to(rng.choice(["/dev/zero", "/etc/passwd", "golden.json"]))
    if what != "link":
        arrays.write_bytes(data)
        if what != "flipped":
            values = json.loads(record.read_bytes()) | {"arrays_sha256": golden.digest(arrays)}
            record.write_text(json.dumps(values))
    return sandbox.Trial(f"golden.safetensors: {what}", lambda: _read(where), sandbox.Nothing)
