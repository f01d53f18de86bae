"""Lazy views of weight files: names, shapes and dtypes at once, data on demand, so that memory holds one tensor at a
time."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import math
import os
import pathlib

import ml_dtypes
import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits

FLOATS = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
_SAFETENSORS_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": FLOATS["fp32"],
    "F16": FLOATS["fp16"],
    "BF16": FLOATS["bf16"],
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_LONGEST_NAME = 255  # bytes of a file's name
# In the order in which transformers looks for them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One stored tensor; `read()` returns it as a new array.

    rows: the same for rows `start` to `stop`, where the file allows it without reading the others.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    file: pathlib.Path
    read: Callable[[], np.ndarray]
    rows: Callable[[int, int], np.ndarray] | None = None

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows of the first axis, as a new array."""
        if (start, stop) == (0, self.shape[0]):
            return self.read()
        return self.read()[start:stop] if self.rows is None else self.rows(start, stop)


def has_weights(folder: pathlib.Path) -> bool:
    """True if the folder holds a model's weight files."""
    return any((folder / name).is_file() for name in WEIGHT_FILES)


def open_file(path: pathlib.Path) -> dict[str, Tensor]:
    """List the tensors of one `.safetensors` or torch zip (`.bin`, `.pt`, `.pth`) file.

    Raises:
      UserError: missing, truncated or otherwise unreadable file.
    """
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    from vlguard_jax.checkpoints import torch_files

    return torch_files.open_torch(path)


def open_folder(folder: pathlib.Path) -> dict[str, Tensor]:
    """List the tensors of a model folder: a single file or shards with an index, in transformers' order of preference.

    Raises:
      UserError: no weights, a shard missing or unreadable, a tensor in two shards, or an index that does not fit its
        shards.
    """
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            return _open_shards(path) if path.suffix == ".json" else open_file(path)
    raise errors.UserError(f"{folder}: no weights here (looked for {', '.join(WEIGHT_FILES)})")


def _open_shards(index: pathlib.Path) -> dict[str, Tensor]:
    weight_map = files.read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise errors.UserError(f"{index}: no weight_map in this index")
    found: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        path = _beside(index, shard)
        if not path.is_file():
            raise errors.UserError(f"{path}: missing shard, named by {index.name}; download the checkpoint again")
        for name, tensor in open_file(path).items():
            if name in found:
                raise errors.UserError(f"{path}: duplicate tensor {name}, also in {found[name].file.name}")
            found[name] = tensor
    for name, shard in weight_map.items():
        if name not in found or found[name].file.name != shard:
            raise errors.UserError(f"{index.parent / shard}: missing tensor {name}, promised by {index.name}")
    return found


def _beside(index: pathlib.Path, shard: str) -> pathlib.Path:
    """The file of this name in the folder of the index (or a link, as in the hub's cache)."""
    if not shard or shard in (".", "..") or "/" in shard or "\0" in shard or len(os.fsencode(shard)) > _LONGEST_NAME:
        raise errors.UserError(
            f"{index}: names {errors.short(shard)}, which is not a file beside it; download the checkpoint again"
        )
    return index.parent / shard


def _open_safetensors(path: pathlib.Path) -> dict[str, Tensor]:
    import safetensors

    with files.opened(path) as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(min(size, limits.SAFETENSORS_HEADER_BYTES))
    if limits.SAFETENSORS_HEADER_BYTES < size < path.stat().st_size:
        most = f"at most {limits.SAFETENSORS_HEADER_BYTES:,} are read"
        raise errors.UserError(f"{path}: its header has {size:,} bytes, {most}; is it the right file?")
    try:
        whole = safetensors.safe_open(path, "np")  # once: each opening parses the header
        slices = {name: whole.get_slice(name) for name in whole.keys()}  # noqa: SIM118 (not a mapping)
        heads = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (safetensors.SafetensorError, OSError) as e:
        why = unreadable(path, f"truncated? get it again: {e}")
        raise errors.UserError(f"{path}: not a readable safetensors file: {why}") from e
    found = files.parse_json(header, str(path))  # refuses duplicate names; the parser above keeps the last
    of_file = _File(path)
    result = {}
    for name, (shape, dtype) in heads.items():
        if dtype not in _SAFETENSORS_DTYPES:
            quantized = (
                "; quantized weights are not read, take those they were made from"
                if dtype.startswith(("F8", "F4", "I8"))
                else ""
            )
            raise errors.UserError(f"{path}: tensor {name} has the unsupported type {dtype}{quantized}")
        check_shape(path, name, shape, math.prod(shape))
        start = 8 + size + found[name]["data_offsets"][0]  # the parser above has checked that all lie in the file
        read = functools.partial(of_file.read, start, shape, _SAFETENSORS_DTYPES[dtype])
        rows = functools.partial(of_file.rows, start, shape, _SAFETENSORS_DTYPES[dtype]) if shape else None
        result[name] = Tensor(name, shape, _SAFETENSORS_DTYPES[dtype], path, read, rows)
    return result


class _File:
    """Reads arrays out of a file into memory of their own: pages of a map would count as this process's memory."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._when = _identity(os.stat(path))

    def read(self, start: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array whose bytes begin at `start`.

        Raises:
          UserError: the file is another than when it was opened.
        """
        value = np.empty(shape, dtype)
        rest = memoryview(value.reshape(-1).view(np.uint8).data)
        with files.opened(self._path) as file:
            file.seek(start)
            while rest and (n := file.readinto(rest)):
                rest = rest[n:]
            if rest or _identity(os.fstat(file.fileno())) != self._when:
                raise errors.UserError(f"{self._path}: has changed while it was read; start again")
        return value

    def rows(self, start: int, shape: tuple[int, ...], dtype: np.dtype, first: int, stop: int) -> np.ndarray:
        """Rows `first` to `stop` of it."""
        begin = start + first * math.prod(shape[1:]) * dtype.itemsize
        return self.read(begin, (max(0, stop - first), *shape[1:]), dtype)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


def check_shape(path: pathlib.Path, name: str, shape: tuple[int, ...], stored: int) -> None:
    """Raise UserError for more dimensions than weights have, or a tensor far larger than its `stored` numbers."""
    if len(shape) > limits.DIMENSIONS:
        raise errors.UserError(
            f"{path}: tensor {name} has {len(shape)} dimensions, at most {limits.DIMENSIONS} are read"
        )
    if math.prod(max(n, 1) for n in shape) > max(stored, limits.REPEATED):
        raise errors.UserError(
            f"{path}: tensor {name} would be far larger than its data; save it again as contiguous()"
        )


def unreadable(path: pathlib.Path, otherwise: str) -> str:
    """Why a file of weights cannot be read, judged by its first bytes; `otherwise` where they do not tell."""
    try:
        with path.open("rb") as file:
            head = file.read(files.HEAD)
    except OSError:
        return otherwise
    if not head:
        return "the file is empty; get it again"
    text = b"\0" not in head[:4]  # guess an encoding for text only
    return (text and not head.startswith(b"PK") and files.looks_like(head)) or otherwise
