"""Pictures inside tables, as benchmarks are published: Parquet files of the Hugging Face hub, and base64 in a TSV.

They are unpacked into files under names of our own, never under one that a table gives.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
import pathlib
from typing import Any, NamedTuple

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits

KINDS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
_PIECE = 16  # rows that are in memory at a time
_AGAIN = "download the file again"


class Packed(NamedTuple):
    """A row. texts: by column. picture: content of its file, empty where none was asked for."""

    texts: dict[str, str]
    picture: bytes
    origin: str


def read_parquet(path: pathlib.Path, columns: Sequence[str], *, picture: bool) -> Iterator[Packed]:
    """The rows of a Parquet file with text `columns` and, if `picture`, a column `image` of the hub's form, {"bytes"}.

    Raises:
      UserError: missing or damaged file, a missing column, one of another type, an empty cell, or a file beyond the
        limits.
    """
    import pyarrow  # late, as below: only Parquet files need it
    from pyarrow import parquet

    wanted = [*columns, *(["image"] * picture)]
    with files.opened(path) as file:
        try:
            table = parquet.ParquetFile(file, thrift_string_size_limit=1 << 24, thrift_container_size_limit=1 << 20)
            _check(path, table, wanted)
            number = 0
            for piece in table.iter_batches(_PIECE, columns=wanted, use_threads=False):
                for row in piece.to_pylist():
                    yield _row(row, columns, picture, f"{path}: row {number}")
                    number += 1
        except MemoryError:
            raise
        except (pyarrow.ArrowException, OSError, ValueError) as e:
            first = (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise errors.UserError(f"{path}: not a whole Parquet file ({errors.short(first)}); {_AGAIN}") from e


def from_base64(text: str, origin: str) -> Packed:
    """A picture in base64.

    Raises:
      UserError: it is none.
    """
    try:
        return Packed({}, base64.b64decode(text, validate=True), origin)
    except ValueError as e:  # binascii's own is one
        raise errors.UserError(f"{origin}: its picture is not base64 ({e}); {_AGAIN}") from e


def save(row: Packed, folder: pathlib.Path, name: str) -> str:
    """Write the picture of a row as `folder`/`name` with the extension of its format; returns the name with it.

    Raises:
      UserError: it is not a picture of a known format, or too large.
    """
    extension = next((kind for head, kind in KINDS.items() if row.picture.startswith(head)), None)
    if extension is None or len(row.picture) > limits.PICTURE_BYTES:
        raise errors.UserError(
            f"{row.origin}: its picture ({len(row.picture):,} bytes) is of an unknown format or too large; {_AGAIN}"
        )
    target = folder / f"{name}{extension}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(row.picture)
    return f"{name}{extension}"


def _check(path: pathlib.Path, table: Any, wanted: Sequence[str]) -> None:
    """Raise UserError where a column is missing or the file says that it is too large; nothing is unpacked yet."""
    there = table.schema_arrow.names
    for name in wanted:
        if there.count(name) != 1:
            raise errors.UserError(f"{path}: no column {name!r}{errors.nearest(name, there, label='there are')}")
    about = table.metadata
    size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if size > limits.PARQUET_BYTES or about.num_rows > limits.RECORDS:
        raise errors.UserError(
            f"{path}: would be {size:,} bytes in {about.num_rows:,} rows, at most {limits.PARQUET_BYTES:,} in"
            f" {limits.RECORDS:,} are read; is it the right file?"
        )


def _row(row: dict[str, Any], columns: Sequence[str], picture: bool, origin: str) -> Packed:
    texts = {name: str(row[name]) for name in columns if isinstance(row[name], str | int)}
    for name in columns:
        if not texts.get(name, "").strip():
            raise errors.UserError(f"{origin}: {name!r} is empty or not a text")
    image = row.get("image")
    content = image.get("bytes") if isinstance(image, dict) else None
    if picture and not isinstance(content, bytes):
        raise errors.UserError(f"{origin}: 'image' holds no picture; {_AGAIN}")
    return Packed(texts, content if picture and isinstance(content, bytes) else b"", origin)
