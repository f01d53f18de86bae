"""Hostile safetensors files and shard indices: a header that lies about what stands behind it."""

from __future__ import annotations

import json
import pathlib
import random
import struct
from typing import Any

import numpy as np

from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax import limits
from vlguard_jax.checkpoints import tensors

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(6, dtype=np.float16),
    "c": np.ones((2, 2), np.int64),
}
NAMES = {"float32": "F32", "float16": "F16", "int64": "I64"}
RIGHT = {name: [array.dtype.name, array.tolist()] for name, array in ARRAYS.items()}
FAR = (-1, 1 << 31, 1 << 62, 1 << 63, 1 << 64, 1e300, "8", None, True, 0.5)


def header() -> dict[str, Any]:
    """A true one."""
    found: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in ARRAYS.items():
        found[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    return found


def written(head: bytes, *, size: int | None = None) -> bytes:
    """A file behind a header, whose length may be a lie."""
    return (
        struct.pack("<Q", len(head) if size is None else size) + head + b"".join(a.tobytes() for a in ARRAYS.values())
    )


def read(path: pathlib.Path) -> dict[str, list]:
    """All tensors, through the reader under test."""
    return {
        name: [tensor.dtype.name, tensor.read().tolist()] for name, tensor in sorted(tensors.open_file(path).items())
    }


def _lied(rng: random.Random) -> bytes:
    head = header()
    name = rng.choice(list(ARRAYS))
    entry = head[name]
    begin, end = entry["data_offsets"]
    which = rng.randrange(10)
    if which == 0:
        entry["shape"] = [rng.choice(FAR), *entry["shape"][1:]]
    elif which == 1:
        entry["shape"] = rng.choice([entry["shape"] + [2], [1 << 32, 1 << 32], "34", None, {}, [[3, 4]]])
    elif which == 2:
        entry["data_offsets"] = [rng.choice(FAR), end]
    elif which == 3:
        entry["data_offsets"] = [begin, rng.choice(FAR)]
    elif which == 4:
        entry["data_offsets"] = rng.choice([[end, begin], [begin], [begin, end, end], None, "0", [begin + 1, end + 1]])
    elif which == 5:
        entry["dtype"] = rng.choice(["F8_E4M3", "F128", "", None, 7, "f32", "I4", "\u001b[31mF32"])
    elif which == 6:
        entry["data_offsets"] = next(head[other]["data_offsets"] for other in ARRAYS if other != name)
    elif which == 7:
        entry["shape"] = [1] * 65 + entry["shape"]
    elif which == 8:
        head["d"] = {
            "dtype": "F32",
            "shape": rng.choice([[0, 1 << 62], [1 << 62, 0, 2], [0] * 70]),
            "data_offsets": [68, 68],
        }
    else:
        head[rng.choice(["d", "\u001b[2J", "x" * 100_000])] = {
            "dtype": "F32",
            "shape": [1],
            "data_offsets": [1 << 40, (1 << 40) + 4],
        }
    return written(json.dumps(head).encode())


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One file, or a folder of two shards with an index, and its trial."""
    path = folder / "model.safetensors"
    true = json.dumps(header()).encode()
    kind = rng.choice(["sound", "truncated", "length of the header", "lies", "document", "twice", "index"])
    right: object = sandbox.Nothing
    if kind == "sound":
        path.write_bytes(written(true))
        right = RIGHT
    elif kind == "truncated":
        data = written(true)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.8 else data + b"x" * rng.randrange(1, 99))
    elif kind == "length of the header":
        sizes = [0, 1, len(true) - 1, len(true) + 1, 1 << 31, 1 << 62, (1 << 64) - 1]
        long = true[:-1] + b" " * (limits.SAFETENSORS_HEADER_BYTES + 8) + true[-1:]
        path.write_bytes(written(long) if rng.random() < 0.1 else written(true, size=rng.choice(sizes)))
    elif kind == "lies":
        path.write_bytes(_lied(rng))
    elif kind == "document":
        what, data = documents.change(rng, header())
        kind, right = f"header with {what}", sandbox.Anything
        path.write_bytes(written(data))
    elif kind == "twice":
        path.write_bytes(written(true[:-1] + b', "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'))
    else:
        return _index(rng, folder)
    return sandbox.Trial(kind, lambda: read(path), right, must_read=kind == "sound")


def _index(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """Shards named by an index; one of them may not be the folder's."""
    for name in ("one.safetensors", "two.safetensors"):
        (folder / name).write_bytes(written(json.dumps(header()).encode()))
    beyond = folder.parent / "outside" / "shard.safetensors"
    beyond.write_bytes(written(json.dumps(header()).encode()))
    names = [
        "../outside/shard.safetensors",
        str(beyond),
        "./../outside/shard.safetensors",
        "one.safetensors/../two.safetensors",
        "",
        ".",
    ]
    names += ["\0", "a/\u001b[2J", "two.safetensors", "x" * 5000, "..", "/dev/zero", "one.txt"]
    chosen = rng.choice([*names, 7, None, ["one.safetensors"]])
    weights = {"a": "one.safetensors", "b": chosen, "c": "one.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))

    def read_folder() -> object:
        return sorted(t.read().tolist() for t in tensors.open_folder(folder).values())

    return sandbox.Trial("index", read_folder)
