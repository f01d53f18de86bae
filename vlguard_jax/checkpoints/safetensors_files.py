"""Writes safetensors files one tensor at a time, with two tensors in memory.

Format (github.com/huggingface/safetensors, README): the length of the header in 8 bytes, the header (JSON, padded with
spaces to a multiple of 8), then the tensors one after another. Order and spelling are the library's
(safetensors/src/tensor.rs, `prepare`), so the bytes equal those of its `save_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
import hashlib
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from vlguard_jax.checkpoints import tensors

# Dtypes of weights in the order of a file; tensors of one dtype are sorted by name.
_NAMES = {
    np.dtype(np.float64): "F64",
    tensors.FLOATS["fp32"]: "F32",
    tensors.FLOATS["bf16"]: "BF16",
    tensors.FLOATS["fp16"]: "F16",
}
_ORDER = tuple(_NAMES)
_ALIGNMENT = 8


class Entry(NamedTuple):
    """A tensor to be written. read: called once, when its turn comes; returns an array of this shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def save(path: pathlib.Path, entries: Sequence[Entry], tell: Callable[[int], object] = lambda n: None) -> str:
    """Write one new file; returns its sha256. tell: called with the bytes of each tensor.

    Threads write and hash a tensor while the next one is read.

    Raises:
      ValueError: an entry's `read` returns another shape or dtype than the entry's.
      OSError: it cannot be written; a partial file may be left.
    """
    entries = sorted(entries, key=lambda entry: (_ORDER.index(entry.dtype), entry.name))
    digest = hashlib.sha256()
    with path.open("xb") as file, futures.ThreadPoolExecutor(2, thread_name_prefix="write") as pool:
        before: list[futures.Future[Any]] = []

        def put(data: Any) -> None:
            for one in before:
                one.result()
            before[:] = pool.submit(file.write, data), pool.submit(digest.update, data)

        put(_header(entries))
        for entry in entries:
            put(_data(entry))
            tell(entry.size)
        put(b"")
        for one in before:
            one.result()
    return digest.hexdigest()


def _header(entries: Sequence[Entry]) -> bytes:
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in entries:
        begin, end = end, end + entry.size
        header[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _data(entry: Entry) -> memoryview:
    value = entry.read()
    if (value.shape, value.dtype) != (entry.shape, entry.dtype):
        raise ValueError(f"{entry.name}: {value.dtype} {value.shape}, {entry.dtype} {entry.shape} was announced")
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data  # bf16 itself has no buffer


def shards(entries: Sequence[Entry], most: int) -> list[list[Entry]]:
    """The entries in order, in shards of at most `most` bytes; a larger tensor gets its own shard."""
    found: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if found[-1] and size + entry.size > most:
            found.append([])
            size = 0
        found[-1].append(entry)
        size += entry.size
    return found
