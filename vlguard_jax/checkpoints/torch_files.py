"""Torch `.bin` files (zip archives with one pickle) without torch and without running what a pickle may ask for.

The pickle may only name the few globals that a plain state dict needs; tensors are read straight from the uncompressed zip
members through a memory map, one at a time. Format: torch/serialization.py, `_save` and `_load` (format version 3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
import dataclasses
import functools
import io
import math
import mmap
import pathlib
import pickle
import struct
from typing import Any
import zipfile

import ml_dtypes
import numpy as np

from vlguard_jax import errors
from vlguard_jax.checkpoints import tensors

STORAGES = {
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_ALIGNMENT = 64
_ZIP_LOCAL_HEADER = 30


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class _Strided:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(Exception):
    """The pickle asks for something that a state dict does not need."""


class _Unpickler(pickle.Unpickler):
    """Knows the globals of a state dict and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        # New function objects on each look-up: a pickle can set attributes on what it gets, and nothing may outlive the load.
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Strided(storage, offset, tuple(shape), tuple(strides))
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise _Refused(f"persistent object {kind!r}")
        return _Storage(str(key), dtype, int(count))


def open_torch(path: pathlib.Path) -> dict[str, tensors.Tensor]:
    """List the tensors of a torch zip file; each is read from disk when its `read` is called.

    Raises:
      UserError: not a torch zip file, truncated, compressed, big-endian, asks for a global that a state dict does not need, or
        does not hold a flat dict of tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename: m for m in archive.infolist()}
            pickles = [name for name in members if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise errors.UserError(f"{path}: not a torch file (no data.pkl inside)")
            root = pickles[0].removesuffix("data.pkl")
            if f"{root}byteorder" in members and archive.read(f"{root}byteorder").strip() != b"little":
                raise errors.UserError(f"{path}: written on a big-endian machine; save it again on a little-endian one")
            content = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
    except _Refused as e:
        raise errors.UserError(f"{path}: refused to load, since it asks for {e} and a file of weights does not need that") from e
    except FileNotFoundError as e:
        raise errors.UserError(f"{path}: no such file") from e
    except errors.UserError:
        raise
    except Exception as e:  # a damaged pickle can raise anything
        hint = "truncated, or saved by torch before 1.6; download it again or save it with a newer torch"
        why = tensors.unreadable(path, f"{hint}: {e or type(e).__name__}")
        raise errors.UserError(f"{path}: not a readable torch zip file: {why}") from e
    return _list_tensors(path, root, members, content)


def _list_tensors(path: pathlib.Path, root: str, members: Mapping[str, zipfile.ZipInfo], content: Any) -> dict[str, tensors.Tensor]:
    if not isinstance(content, dict) or not all(isinstance(k, str) and isinstance(v, _Strided) for k, v in content.items()):
        raise errors.UserError(f"{path}: holds something else than a flat dict of tensors")
    mapped = functools.cache(lambda: _map_file(path))
    result = {}
    for name, strided in content.items():
        member = members.get(f"{root}data/{strided.storage.key}")
        if member is None or member.compress_type != zipfile.ZIP_STORED:
            raise errors.UserError(f"{path}: the data of tensor {name} is missing or compressed; save the file again with torch.save")
        _check_bounds(path, name, strided, member)
        read = functools.partial(_read_strided, path, mapped, member, strided)
        result[name] = tensors.Tensor(name, strided.shape, strided.storage.dtype, path, read)
    return result


def _check_bounds(path: pathlib.Path, name: str, t: _Strided, member: zipfile.ZipInfo) -> None:
    sizes_ok = len(t.shape) == len(t.strides) and min((*t.shape, *t.strides, t.offset), default=0) >= 0
    last = t.offset + sum((n - 1) * s for n, s in zip(t.shape, t.strides, strict=True)) if sizes_ok and all(t.shape) else 0
    if not sizes_ok or member.file_size < t.storage.count * t.storage.dtype.itemsize or last >= max(t.storage.count, 1):
        raise errors.UserError(f"{path}: tensor {name} reaches beyond its data; the file is damaged, get it again")


def _map_file(path: pathlib.Path) -> mmap.mmap:
    with path.open("rb") as f:
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)


def _read_strided(path: pathlib.Path, mapped: Callable[[], mmap.mmap], member: zipfile.ZipInfo, t: _Strided) -> np.ndarray:
    data = mapped()
    name_length, extra_length = struct.unpack_from("<HH", data, member.header_offset + 26)
    start = member.header_offset + _ZIP_LOCAL_HEADER + name_length + extra_length
    if start + member.file_size > len(data):
        raise errors.UserError(f"{path}: truncated; get the file again")
    flat = np.frombuffer(data, t.storage.dtype, t.storage.count, start)[t.offset :]
    strides = tuple(s * t.storage.dtype.itemsize for s in t.strides)
    return np.lib.stride_tricks.as_strided(flat, t.shape, strides, writeable=False).copy()


def save_torch(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write {name: array} as a torch zip file that `torch.load(path, weights_only=True)` reads as a dict of CPU tensors."""
    root = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write_member(archive, f"{root}/data.pkl", _pickle_state(arrays))
        _write_member(archive, f"{root}/byteorder", b"little")
        for i, array in enumerate(arrays.values()):
            _write_member(archive, f"{root}/data/{i}", np.ascontiguousarray(array).tobytes())
        _write_member(archive, f"{root}/version", b"3\n")


def _write_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # its default time, so that equal tensors give equal files
    assert archive.fp is not None
    start = archive.fp.tell() + _ZIP_LOCAL_HEADER + len(name) + 4
    info.extra = b"FB" + struct.pack("<H", -start % _ALIGNMENT)  # torch memory-maps members: keep them aligned
    info.extra += b"Z" * (-start % _ALIGNMENT)
    archive.writestr(info, data)


def _pickle_state(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Spell out the pickle (protocol 2) of a state dict: pickle.dumps would need torch to look its functions up."""
    names = {dtype: name for name, dtype in STORAGES.items()}
    out = [b"\x80\x02}("]  # PROTO 2, EMPTY_DICT, MARK
    for i, (name, array) in enumerate(arrays.items()):
        if array.dtype not in names:
            raise ValueError(f"{name}: torch has no storage of {array.dtype}")
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        out += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(("]
        out += [_text("storage"), f"ctorch\n{names[array.dtype]}\n".encode(), _text(str(i)), _text("cpu"), _int(array.size), b"tQ"]
        out += [_int(0), b"(", *map(_int, array.shape), b"t", b"(", *map(_int, strides), b"t"]
        out += [b"\x89ccollections\nOrderedDict\n)RtR"]  # requires_grad False, no hooks; TUPLE, REDUCE
    return b"".join([*out, b"u."])


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _int(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data
