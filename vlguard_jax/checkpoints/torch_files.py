"""Torch `.bin` files (zip archives with one pickle), read without torch and without executing the pickle.

The pickle is read as data (state_pickle.py); tensors are read straight from the uncompressed zip members through a
memory map, one at a time. Nothing in the file is trusted: offsets and sizes are compared with the file before memory is
allocated, checksums when the bytes are read. Format: torch/serialization.py, `_save` and `_load` (format version 3).
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
import itertools
import math
import mmap
import pathlib
import pickle
import struct
from typing import Any, BinaryIO, cast
import zipfile
import zlib

import ml_dtypes
import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.checkpoints import state_pickle
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
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flags of a zip member


def open_torch(path: pathlib.Path) -> dict[str, tensors.Tensor]:
    """List the tensors of a torch zip file; each is read from disk when its `read` is called.

    Raises:
      UserError: not a torch zip file, truncated, damaged, compressed, big-endian, larger than limits.py allows, asks
        for something that a state dict does not need, or does not hold a flat dict of tensors.
    """
    archive = _Archive(path)
    pickles = [name for name in archive.members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise errors.UserError(f"{path}: not a torch file (no data.pkl inside)")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.members and archive.read(f"{root}byteorder")[:9].tobytes().strip() != b"little":
        raise errors.UserError(f"{path}: written on a big-endian machine; save it again on a little-endian one")
    size = archive.members[pickles[0]].file_size
    if size > limits.PICKLE_BYTES:
        raise errors.UserError(
            f"{path}: its data.pkl has {size:,} bytes, at most {limits.PICKLE_BYTES:,} are read; get the file again"
        )
    try:
        content = state_pickle.load(archive.read(pickles[0]).tobytes(), STORAGES)
    except state_pickle.RefusedError as e:
        raise errors.UserError(f"{path}: {e}") from e
    result = {}
    for name, strided in content.items():
        member = f"{root}data/{strided.storage.key}"
        if member not in archive.members:
            raise errors.UserError(f"{path}: the data of tensor {name} is missing; save the file again with torch.save")
        dtype = STORAGES[strided.storage.kind]
        _check_sizes(path, name, strided, archive.members[member].file_size // dtype.itemsize)
        result[name] = tensors.Tensor(
            name, strided.shape, dtype, path, functools.partial(_read_strided, archive, member, dtype, strided)
        )
    return result


def _check_sizes(path: pathlib.Path, name: str, t: state_pickle.Strided, stored: int) -> None:
    """Raise UserError unless the tensor lies within its storage of `stored` numbers and repeats little of it."""
    sizes_ok = len(t.shape) == len(t.strides) and min((*t.shape, *t.strides, t.offset, t.storage.count)) >= 0
    last = (
        t.offset + sum((n - 1) * s for n, s in zip(t.shape, t.strides, strict=True))
        if sizes_ok and all(t.shape)
        else -1
    )
    if not sizes_ok or t.storage.count > stored or last >= t.storage.count:
        raise errors.UserError(f"{path}: tensor {name} reaches beyond its data; the file is damaged, get it again")
    tensors.check_shape(path, name, t.shape, t.storage.count)


def _read_strided(archive: _Archive, member: str, dtype: np.dtype, t: state_pickle.Strided) -> np.ndarray:
    data = archive.read(member)
    if not all(t.shape):
        return np.empty(t.shape, dtype)
    flat = np.frombuffer(data, dtype, t.storage.count)[t.offset :]
    strides = tuple(s * dtype.itemsize if n > 1 else 0 for n, s in zip(t.shape, t.strides, strict=True))
    return np.lib.stride_tricks.as_strided(flat, t.shape, strides, writeable=False).copy()


class _Archive:
    """The members of a torch zip file, memory-mapped. Members are uncompressed and do not overlap."""

    def __init__(self, path: pathlib.Path):
        """Read the directory.

        Raises:
          UserError: not a zip file, truncated, or two members of one name.
        """
        self._path = path
        self._checked: set[str] = set()
        with files.opened(path) as file:
            try:
                with zipfile.ZipFile(cast(Any, _Directory(file))) as archive:
                    found, end = archive.infolist(), archive.start_dir
                self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            except Exception as e:  # a damaged directory can raise anything
                hint = "truncated, or saved by torch before 1.6; download it again or save it with a newer torch"
                why = tensors.unreadable(path, f"{hint}: {e or type(e).__name__}")
                raise errors.UserError(f"{path}: not a readable torch zip file: {why}") from e
        self.members = {member.filename: member for member in found}
        if len(self.members) != len(found):
            raise errors.UserError(f"{path}: two members of one name; the file is damaged, get it again")
        self._ends = dict(itertools.pairwise([*sorted(member.header_offset for member in found), end]))

    def read(self, name: str) -> memoryview:
        """The bytes of a member, compared with its checksum on the first read.

        Raises:
          UserError: compressed, damaged, or not where the directory says.
        """
        member = self.members[name]
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise errors.UserError(f"{self._path}: {name} is compressed; save the file again with torch.save")
        start = self._start(member)
        data = self._data[start : start + member.file_size]
        if name not in self._checked and member.CRC not in (0, zlib.crc32(data)):  # torch can be told to write 0
            raise errors.UserError(
                f"{self._path}: {name} is not what was written (checksum); the file is damaged, get it again"
            )
        self._checked.add(name)
        return data

    def _start(self, member: zipfile.ZipInfo) -> int:
        """The offset of a member's bytes, checked against its local header and the next one."""
        at, end = member.header_offset, self._ends[member.header_offset]
        if 0 <= at <= end - _ZIP_LOCAL_HEADER and end <= len(self._data) and member.file_size == member.compress_size:
            name_length, extra_length = struct.unpack_from("<HH", self._data, at + 26)
            start = at + _ZIP_LOCAL_HEADER + name_length + extra_length
            name = self._data[at + _ZIP_LOCAL_HEADER :][:name_length]
            own = member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8 else "cp437")
            if self._data[at : at + 4] == b"PK\3\4" and name == own and start + member.file_size <= end:
                return start
        raise errors.UserError(
            f"{self._path}: {member.filename} is not where the file's directory says; damaged, get the file again"
        )


class _Directory:
    """A file that limits the size of its zip directory, which zipfile reads at once."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Like a file's `read`; raises zipfile.BadZipFile for too large a size."""
        if size > limits.ZIP_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"a directory of {size:,} bytes, at most {limits.ZIP_DIRECTORY_BYTES:,} are read")
        return self._file.read(size)


def save_torch(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write {name: array} as a torch zip file that `torch.load(path, weights_only=True)` reads as a dict of CPU
    tensors."""
    root = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write_member(archive, f"{root}/data.pkl", _pickle_state(arrays))
        _write_member(archive, f"{root}/byteorder", b"little")
        for i, array in enumerate(arrays.values()):
            _write_member(archive, f"{root}/data/{i}", np.ascontiguousarray(array).tobytes())
        _write_member(archive, f"{root}/version", b"3\n")


def _write_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # with the default time, so that equal tensors give equal files
    assert archive.fp is not None
    start = archive.fp.tell() + _ZIP_LOCAL_HEADER + len(name) + 4
    info.extra = b"FB" + struct.pack("<H", -start % _ALIGNMENT)  # torch memory-maps members: keep them aligned
    info.extra += b"Z" * (-start % _ALIGNMENT)
    archive.writestr(info, data)


def _pickle_state(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle (protocol 2) of a state dict, spelled out: pickle.dumps would need torch."""
    names = {dtype: name for name, dtype in STORAGES.items()}
    out = [b"\x80\x02}("]  # PROTO 2, EMPTY_DICT, MARK
    for i, (name, array) in enumerate(arrays.items()):
        if array.dtype not in names:
            raise ValueError(f"{name}: torch has no storage of {array.dtype}")
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        out += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(("]
        out += [
            _text("storage"),
            f"ctorch\n{names[array.dtype]}\n".encode(),
            _text(str(i)),
            _text("cpu"),
            _int(array.size),
            b"tQ",
        ]
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
