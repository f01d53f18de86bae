"""Reads GGUF files: the settings and the tensors of a model, quantized or not.

Format: llama.cpp, ggml/include/gguf.h (versions 2 and 3). Nothing in the file is trusted: counts, lengths, places and
sizes are compared with the file before memory is allocated. What is inside the blocks of a quantized tensor is computed
by the package `gguf`, llama.cpp's own, exactly in float32.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import math
import mmap
import pathlib
import struct
from typing import Any

import ml_dtypes
import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.checkpoints import tensors

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32  # of tensors, where the file does not say
_MOST_DIMENSIONS = 4  # of ggml
_STRING, _ARRAY, _BOOL = 8, 9, 7
# The format of a single value by the number of its type.
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", _BOOL: "<B", 10: "<Q", 11: "<q", 12: "<d"}
# Types of tensors that are plain numbers, by ggml's number; each is read as it is.
_PLAIN = {0: np.dtype(np.float32), 1: np.dtype(np.float16), 30: np.dtype(ml_dtypes.bfloat16)}
_AGAIN = "get the file again"


@dataclasses.dataclass(frozen=True)
class Gguf:
    """A GGUF file.

    settings: its metadata: numbers, texts, true or false, and lists of them. tensors: by name, with shapes in numpy's
    order; a quantized one is read as float32. kinds: how many tensors are stored in which way.
    """

    path: pathlib.Path
    settings: dict[str, Any]
    tensors: dict[str, tensors.Tensor]
    kinds: dict[str, int]


def read(path: pathlib.Path) -> Gguf:
    """The settings and tensors of a file; a tensor's data is read when its `read` is called.

    Raises:
      UserError: not a GGUF file, truncated, damaged, larger than limits.py allows or of a kind that the package `gguf`
        does not read; or that package is missing.
    """
    with files.opened(path) as file:
        head = file.read(files.HEAD)
        if head[:4] != _MAGIC:
            why = tensors.unreadable(path, "it does not begin as one")
            raise errors.UserError(f"{path}: not a GGUF file: {why}")
        cursor = _Cursor(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    library = _library(path)
    _check_version(path, cursor)
    tensor_count, settings_count = cursor.take("<QQ")
    settings: dict[str, Any] = {}
    for _ in cursor.times(settings_count, 13):
        key = cursor.text()
        if key in settings:
            raise errors.UserError(f"{path}: two values for {errors.short(key)}; {_AGAIN}")
        settings[key] = cursor.value(*cursor.take("<I"))
    entries = [_entry(cursor) for _ in cursor.times(tensor_count, 32)]
    alignment = settings.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 16 or alignment & (alignment - 1):
        raise errors.UserError(f"{path}: general.alignment={errors.short(alignment)} must be a power of two; {_AGAIN}")
    start = -(-cursor.at // alignment) * alignment
    placed = [_place(path, library, entry, start, alignment) for entry in entries]
    _check_places(path, placed, len(cursor.data))
    found = {one.name: _tensor(path, library, one, cursor.data) for one in placed}
    if len(found) < len(placed):
        raise errors.UserError(f"{path}: two tensors of one name; {_AGAIN}")
    kinds = {kind: sum(one.kind == kind for one in placed) for kind in sorted({one.kind for one in placed})}
    return Gguf(path, settings, found, kinds)


def _check_version(path: pathlib.Path, cursor: _Cursor) -> None:
    cursor.at = len(_MAGIC)
    (version,) = cursor.take("<I")
    if version not in _VERSIONS:
        other = version and not version & 0xFFFF
        what = "written on a big-endian machine" if other else f"version {version} of the format"
        raise errors.UserError(f"{path}: {what}; version 2 or 3, little-endian, is read")


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What a file says about one tensor. shape: in numpy's order."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A tensor whose bytes are known. row_bytes: of a row of blocks; 0 for plain numbers."""

    name: str
    shape: tuple[int, ...]
    kind: str
    type: int
    begin: int
    end: int
    row_bytes: int


class _Cursor:
    """Reads a header from its beginning, never beyond its limit or the file's end."""

    def __init__(self, path: pathlib.Path, data: mmap.mmap):
        self.path, self.data, self.at = path, data, 0
        self._values = 0

    def take(self, form: str) -> tuple[Any, ...]:
        """The next values of this `struct` format."""
        begin = self._skip(struct.calcsize(form))
        return struct.unpack_from(form, self.data, begin)

    def times(self, count: int, least: int) -> range:
        """As many steps, each of at least so many bytes."""
        self._room(count * least)
        self._values += count
        if self._values > limits.JSON_VALUES:
            raise errors.UserError(
                f"{self.path}: more than {limits.JSON_VALUES:,} values in its header; is it the right file?"
            )
        return range(count)

    def text(self) -> str:
        """A string, its length first."""
        (length,) = self.take("<Q")
        begin = self._skip(length)
        try:
            return self.data[begin : begin + length].decode("utf-8")
        except UnicodeDecodeError as e:
            raise errors.UserError(f"{self.path}: a text in its header is not UTF-8; {_AGAIN}") from e

    def value(self, kind: int) -> Any:
        """A value of this type, or a list of them."""
        if kind != _ARRAY:
            return self._single(kind)
        inner, count = self.take("<IQ")
        if inner == _STRING:
            return [self.text() for _ in self.times(count, 8)]
        if inner not in _SCALARS:
            raise errors.UserError(f"{self.path}: a list of an unknown type ({inner}) in its header; {_AGAIN}")
        form = _SCALARS[inner]
        self.times(count, struct.calcsize(form))
        values = self.take(f"<{count}{form[1]}")
        return [self._flag(value) for value in values] if inner == _BOOL else list(values)

    def _single(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind not in _SCALARS:
            raise errors.UserError(f"{self.path}: a value of an unknown type ({kind}) in its header; {_AGAIN}")
        (value,) = self.take(_SCALARS[kind])
        return self._flag(value) if kind == _BOOL else value

    def _flag(self, value: int) -> bool:
        if value > 1:
            raise errors.UserError(f"{self.path}: a flag in its header is neither true nor false; {_AGAIN}")
        return bool(value)

    def _skip(self, size: int) -> int:
        """Where the next `size` bytes begin, which are passed."""
        self._room(size)
        begin, self.at = self.at, self.at + size
        return begin

    def _room(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise errors.UserError(
                f"{self.path}: truncated or damaged: its header asks for more than the file's {len(self.data):,}"
                f" bytes; {_AGAIN}"
            )
        if self.at + size > limits.GGUF_HEADER_BYTES:
            raise errors.UserError(
                f"{self.path}: its header has more than {limits.GGUF_HEADER_BYTES:,} bytes; is it the right file?"
            )


def _library(path: pathlib.Path) -> Any:
    """The package `gguf`. Raises UserError where it is missing, or another one."""
    if importlib.util.find_spec("gguf") is None:
        raise errors.UserError(
            f"{path}: the package gguf is needed to read it: python -m pip install --no-deps gguf (the extra `gguf` of"
            " vlguard_jax)"
        )
    import gguf  # late: only needed here, and not a run-time dependency

    for name in ("GGMLQuantizationType", "GGML_QUANT_SIZES", "dequantize"):  # old releases lack the last
        if not hasattr(gguf, name):
            raise errors.UserError(
                f"{path}: the module gguf that is installed holds no {name}, it is old or another package's: python -m"
                " pip install --no-deps --upgrade gguf"
            )
    return gguf


def _entry(cursor: _Cursor) -> _Entry:
    name = cursor.text()
    (dimensions,) = cursor.take("<I")
    if not 0 < dimensions <= _MOST_DIMENSIONS:
        raise errors.UserError(
            f"{cursor.path}: tensor {errors.short(name)} has {dimensions:,} dimensions, 1 to {_MOST_DIMENSIONS} are"
            f" possible; {_AGAIN}"
        )
    shape = cursor.take(f"<{dimensions}Q")
    kind, offset = cursor.take("<IQ")
    return _Entry(name, tuple(reversed(shape)), kind, offset)


def _place(path: pathlib.Path, library: Any, entry: _Entry, start: int, alignment: int) -> _Placed:
    """Where a tensor lies. Raises UserError for a type or a shape that cannot be."""
    try:
        kind = library.GGMLQuantizationType(entry.type)
        block, block_bytes = library.GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        kind = None
    if kind is None or not (entry.type in _PLAIN or _readable(library, kind, block_bytes)):
        name = kind.name if kind is not None else f"number {entry.type}"
        raise errors.UserError(
            f"{path}: tensor {errors.short(entry.name)} is of the type {name}, which the package gguf does not read:"
            " update it, or take another quantization of the model"
        )
    if not all(entry.shape) or entry.shape[-1] % block:
        raise errors.UserError(
            f"{path}: tensor {errors.short(entry.name)} has the shape {list(entry.shape)}, which {kind.name} cannot"
            f" have; {_AGAIN}"
        )
    size = math.prod(entry.shape) // block * block_bytes
    if entry.offset % alignment:
        raise errors.UserError(f"{path}: tensor {errors.short(entry.name)} lies at an odd place; {_AGAIN}")
    begin = start + entry.offset
    row_bytes = 0 if entry.type in _PLAIN else entry.shape[-1] // block * block_bytes
    return _Placed(entry.name, entry.shape, kind.name, entry.type, begin, begin + size, row_bytes)


@functools.lru_cache(maxsize=64)
def _readable(library: Any, kind: Any, block_bytes: int) -> bool:
    """Whether the library turns blocks of this kind into numbers."""
    try:
        library.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _check_places(path: pathlib.Path, placed: list[_Placed], size: int) -> None:
    """Raise UserError where a tensor is not in the file, or two share bytes."""
    for one in placed:
        if one.end > size:
            raise errors.UserError(
                f"{path}: truncated: tensor {errors.short(one.name)} ends at byte {one.end:,} of {size:,}; {_AGAIN}"
            )
    for one, other in itertools.pairwise(sorted(placed, key=lambda one: one.begin)):
        if other.begin < one.end:
            raise errors.UserError(
                f"{path}: tensors {errors.short(one.name)} and {errors.short(other.name)} share bytes; {_AGAIN}"
            )


def _tensor(path: pathlib.Path, library: Any, placed: _Placed, data: mmap.mmap) -> tensors.Tensor:
    dtype = _PLAIN.get(placed.type, tensors.FLOATS["fp32"])

    def load() -> np.ndarray:
        stored = np.frombuffer(data, np.uint8, placed.end - placed.begin, placed.begin)
        if not placed.row_bytes:
            return stored.view(dtype).reshape(placed.shape).copy()
        with np.errstate(all="ignore"):  # an infinite scale, which the caller finds in the numbers
            whole = library.dequantize(stored.reshape(-1, placed.row_bytes), library.GGMLQuantizationType(placed.type))
        return np.asarray(whole, np.float32).reshape(placed.shape)

    return tensors.Tensor(placed.name, placed.shape, dtype, path, load)
