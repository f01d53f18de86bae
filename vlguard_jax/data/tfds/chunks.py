"""Checks the sizes in an ArrayRecord file before it is unpacked: a few bytes can stand for any number of zeros.

Records are in chunks of Riegeli's format (its doc/riegeli_records_file_format.md): a header gives the packed and the
unpacked size, which the reader enforces. A block header of 24 bytes is inserted every 64 KiB.
"""

from __future__ import annotations

import io
import os
import struct

from vlguard_jax import files
from vlguard_jax import limits

_BLOCK, _BLOCK_HEADER = 1 << 16, 24
_HEADER = struct.Struct("<8xQ8xcB6xQ")  # bytes that follow, kind of chunk, (records), bytes unpacked
_KINDS = b"smpr"  # signature, metadata, padding, records; `prepare` writes no transposed ones


def check(path: str) -> None:
    """Refuse a file that is cut off, or that would be far larger unpacked than pictures are.

    Raises:
      UserError: not a regular file.
      ValueError: as above; the message names no file.
    """
    at = 0
    with files.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            stored, kind, _, unpacked = _HEADER.unpack(_header(file, at))
            if kind not in _KINDS:
                raise ValueError(f"a chunk of kind {kind!r}")
            most = limits.PICTURES_RATIO * stored if unpacked > limits.PICTURES_RATIO_FROM else limits.PICTURE_BYTES
            if unpacked > min(most, limits.PICTURE_BYTES):
                raise ValueError(f"{unpacked:,} bytes packed in {stored:,}, which is more than a picture")
            length = _HEADER.size + stored
            inside = _BLOCK - _BLOCK_HEADER
            at += length + (length + (at + inside - 1) % _BLOCK) // inside * _BLOCK_HEADER
    if at != size:
        raise ValueError("it is cut off")


def _header(file: io.BufferedReader, at: int) -> bytes:
    """The header of the chunk that starts at `at`, without the block headers in it."""
    found = b""
    while len(found) < _HEADER.size:
        at += 0 if at % _BLOCK else _BLOCK_HEADER
        file.seek(at)
        part = file.read(min(_HEADER.size - len(found), _BLOCK - at % _BLOCK))
        if not part:
            raise ValueError("it is cut off")
        found, at = found + part, at + len(part)
    return found
