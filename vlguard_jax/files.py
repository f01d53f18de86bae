"""All reading of foreign JSON, and all writing of single files (folders: folders.py).

Reading: every failure is one line that names the file, what it looks like and what to do. Text is UTF-8, with or
without a byte order mark. Half of a surrogate pair, which JSON can write ("\\ud83d") but no file, terminal or tokenizer
accepts, is refused here, so no text read by this module contains one. Limits: a JSON file of at most limits.JSON_BYTES
bytes (records are read one by one, each of at most limits.RECORD_BYTES), limits.JSON_VALUES values and
limits.JSON_DEPTH levels, numbers of at most 4,300 digits.

Writing: to a unique temporary name in the same folder, then renamed: readers see the old file or the new one, never
half of one.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
import contextlib
import errno
import io
import json
import math
import os
import pathlib
import secrets
import stat
from typing import Any

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import machine

_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
_UNPACK = "unpack it and name what is inside"
SAVE_AS_UTF8 = "save it as UTF-8"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# First bytes, what they are, and what to do.
_SIGNATURES = (
    (_LFS_POINTER, "a git-lfs pointer instead of the file", "fetch the file itself with `git lfs pull`"),
    (b"PK\3\4", "a zip archive", _UNPACK),
    (b"PK\5\6", "an empty zip archive", "get the file again"),
    (b"\x1f\x8b", "a gzip file", _UNPACK),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\0", "an xz file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    (b"PAR1", "a Parquet file", "write its rows as JSON"),
    (b"ARROW1", "an Arrow file", "write its rows as JSON"),
    (b"%PDF-", "a PDF", "name the right file"),
    (b"\x89PNG\r\n", "a PNG picture", "name the right file"),
    (b"\xff\xd8\xff", "a JPEG picture", "name the right file"),
    (codecs.BOM_UTF32_LE, "UTF-32 text", SAVE_AS_UTF8),
    (codecs.BOM_UTF32_BE, "UTF-32 text", SAVE_AS_UTF8),
    (codecs.BOM_UTF16_LE, "UTF-16 text", SAVE_AS_UTF8),
    (codecs.BOM_UTF16_BE, "UTF-16 text", SAVE_AS_UTF8),
)
HEAD = 512  # bytes that `looks_like` needs


def looks_like(head: bytes) -> str:
    """What a file is by its first HEAD bytes, and what to do, for a message; "" if unknown."""
    for signature, kind, way in _SIGNATURES:
        if head.startswith(signature):
            return f"this is {kind}; {way}"
    if head[257:262] == b"ustar":
        return f"this is a tar archive; {_UNPACK}"
    if head.removeprefix(codecs.BOM_UTF8).lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "this is a web page, perhaps of a login or an error, instead of the file; download the file again"
    if len(head) > 3 and json.detect_encoding(head[:4]) not in ("utf-8", "utf-8-sig"):
        return f"this is {json.detect_encoding(head[:4])[:6].upper()} text; {SAVE_AS_UTF8}"
    return ""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """The file at `path`, opened for reading.

    Raises:
      UserError: missing, not a regular file, or no permission to read it.
      OSError: the disk fails.
    """
    try:
        file = open(path, "rb", opener=without_waiting)  # noqa: SIM115 -- closed below
    except (FileNotFoundError, NotADirectoryError) as e:
        raise errors.UserError(f"{path}: no such file") from e
    except IsADirectoryError as e:
        raise errors.UserError(f"{path}: a folder, not a file") from e
    except ValueError as e:  # a null character
        raise errors.UserError(f"{errors.short(str(path))}: not a possible name of a file") from e
    except OSError as e:
        if e.errno not in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO):
            raise
        raise errors.UserError(f"{path}: cannot be read: {e.strerror}") from e
    with file:
        try:
            check_regular(file, str(path))
            yield file
        except OSError as e:
            e.filename = e.filename or os.fspath(path)
            raise


def read_bytes(path: str | os.PathLike[str], limit: int = limits.JSON_BYTES) -> bytes:
    """The content of a file of at most `limit` bytes.

    Raises:
      UserError: as `opened`, or it is larger.
    """
    with opened(path) as file:
        return read_limited(file, str(path), limit)


def check_regular(file: io.FileIO | io.BufferedReader, where: str, limit: int | None = None) -> int:
    """The size of an opened file in bytes.

    Raises UserError where it is a pipe or a device, or has more than `limit`.
    """
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise errors.UserError(f"{where}: a pipe or a device, not a file")
    if limit is not None and found.st_size > limit:
        raise errors.UserError(f"{where}: {found.st_size:,} bytes, at most {limit:,} are read; is it the right file?")
    return found.st_size


def read_limited(file: io.BufferedReader, where: str, limit: int) -> bytes:
    """The content of a file that was just opened.

    Raises UserError as `check_regular`, and if it has more bytes than it reports (as in /proc).
    """
    size = check_regular(file, where, limit)
    data = file.read(size + 1) or b""
    if len(data) > size:
        data += file.read(limit) or b""
    if len(data) > limit:
        raise errors.UserError(f"{where}: more than {limit:,} bytes; is it the right file?")
    return data


def read_text(path: str | os.PathLike[str], limit: int = limits.JSON_BYTES) -> str:
    """The text of a file without its byte order mark. Raises as `read_bytes`, and UserError where it is not UTF-8."""
    return _decoded(read_bytes(path, limit), str(path))


def read_json(path: str | os.PathLike[str], *, finite: bool = False) -> Any:
    """Parse a JSON file. Raises as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path), str(path), finite=finite)


def read_object(path: str | os.PathLike[str], *, finite: bool = True) -> dict[str, Any]:
    """Parse a JSON file that holds an object, all numbers finite unless `finite` is False.

    Raises:
      UserError: as `read_json`, or it holds something else.
    """
    value = read_json(path, finite=finite)
    if not isinstance(value, dict):
        raise errors.UserError(f"{path}: must hold a JSON object, not {kind(value)}")
    return value


def parse_json(data: bytes, where: str, *, finite: bool = False) -> Any:
    """The value in the JSON text `data`; messages begin with `where`.

    With `finite`, NaN and Infinity, which Python writes though JSON has no such numbers, and numbers too large for a
    float are refused.

    Raises:
      UserError: not UTF-8, not JSON (the message names line and column and what it looks like), nested too deeply, a
        number of thousands of digits, half of a surrogate pair, or an object with two values for one name.
    """
    text = _decoded(data, where)
    brackets = data.count(b"[") + data.count(b"{")
    if len(data) > limits.JSON_VALUES and brackets + data.count(b",") > limits.JSON_VALUES:
        raise errors.UserError(
            f"{where}: more than {limits.JSON_VALUES:,} values in one document; is it the right file?"
        )
    try:
        value = (_FINITE if finite else _ANY).decode(text)
    except json.JSONDecodeError as e:
        place = f"line {e.lineno}, column {e.colno}" if "\n" in text.strip() else f"column {e.colno}"
        empty = "" if text.strip() else "the file is empty; get it again"
        guess = empty or looks_like(data[:HEAD]) or f"broken JSON at {place}: {e.msg}"
        raise errors.UserError(f"{where}: {guess}") from e
    except RecursionError as e:
        raise errors.UserError(f"{where}: broken JSON: nested too deeply") from e
    except ValueError as e:
        raise errors.UserError(f"{where}: {_odd(e)}") from e
    if brackets > limits.JSON_DEPTH:
        _check_depth(value, where)
    if b"\\ud" in data or b"\\uD" in data:
        check_text(value, where)
    return value


def _check_depth(value: Any, where: str) -> None:
    level: list[Any] = [[value]]
    for _ in range(limits.JSON_DEPTH + 1):
        inside = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
        level = [v for v in inside if isinstance(v, dict | list)]
        if not level:
            return
    raise errors.UserError(f"{where}: broken JSON: nested too deeply (more than {limits.JSON_DEPTH} levels)")


def check_text(value: Any, where: str) -> None:
    """Raise UserError, naming the text, if any text in the JSON value `value` contains half of a surrogate pair."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            try:
                found.encode()
            except UnicodeEncodeError as e:
                around = errors.short(found[max(0, e.start - 20) : e.start + 20])
                raise errors.UserError(
                    f"{where}: half of a surrogate pair (\\u{ord(found[e.start]):04x}) in the text {around}: a cut"
                    " emoji, or bytes that are not UTF-8; correct the text"
                ) from e
        elif isinstance(found, dict):
            waiting += found.values()
            waiting += found.keys()
        elif isinstance(found, (list, tuple)):
            waiting += found


def kind(value: Any) -> str:
    """The kind of a JSON value, in words."""
    return f"an empty {type(value).__name__}" if value in ([], {}, "") else _KINDS[type(value)]


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Write a file whole or not at all: to a temporary file, then renamed.

    Raises:
      OSError: it cannot be written; the old file is unchanged.
    """
    new = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with machine.naming(path, new):
            with open(new, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def append(file: io.FileIO, data: bytes) -> None:
    """Append `data` whole or not at all to a file that was opened with mode "ab" and without a buffer.

    Raises:
      OSError: it cannot be written; the file is unchanged.
    """
    end = os.fstat(file.fileno()).st_size
    try:
        with machine.naming(os.fsdecode(file.name) if isinstance(file.name, str | bytes) else str(file.name)):
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) or 0 :]
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), end)
        raise


def without_waiting(path: str, flags: int) -> int:
    """An `opener` that opens a pipe without waiting for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8")
    except UnicodeDecodeError as e:
        raise errors.UserError(
            f"{where}: {looks_like(data[:HEAD]) or f'not UTF-8 text at byte {e.start}; {SAVE_AS_UTF8}'}"
        ) from e


class _Odd(ValueError):
    """JSON that Python accepts, but with a number that is not finite or an ambiguous object."""


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise _Odd(f"{errors.short(text)} is not a finite number; correct it")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if (type(value), value) != (type(found[name]), found[name]):
                raise _Odd(f"an object has two values for {errors.short(name)}; leave one")
    return found


def _odd(error: ValueError) -> str:
    return str(error) if isinstance(error, _Odd) else "a number of more than 4,300 digits; correct it"


_ANY = json.JSONDecoder(object_pairs_hook=_object)
_FINITE = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)
