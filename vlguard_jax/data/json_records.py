"""Records in JSON files of any size: scanned once without holding them in memory, then read one by one by number.

A file is a JSON list, or has one JSON object per line ("JSON lines"). Its beginning tells which, not its name.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import re
from typing import Any, BinaryIO, Generic, TypeVar

from jaxtyping import Int64
import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits

CHUNK = 1 << 23  # bytes read at once
WANTED = "must hold a JSON list of records, or one JSON object a line"
_SPACE = re.compile(r"[ \t\r\n]*")
_LINES = (".jsonl", ".ndjson")  # a lone object is a record only in a file with such a name

T = TypeVar("T")
Parse = Callable[[Any, int, str], T]


@dataclasses.dataclass(frozen=True)
class Spans:
    """The byte span of each record of a file."""

    offset: Int64[np.ndarray, " n"]
    size: Int64[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class JsonRecords(Generic[T]):
    """The records of a file by number; each is read when needed.

    `first` is the number of the first one in the file.

    `parse(value, number, path)` turns one JSON value into a record and raises UserError for a malformed one.
    """

    path: str
    parse: Parse[T]
    spans: Spans
    first: int = 0

    def __len__(self) -> int:
        return len(self.spans.offset)

    def __getitem__(self, i: int) -> T:
        return self._record(i, self.raw(i))

    def __iter__(self) -> Iterator[T]:
        return (read() for read in self.each())

    def each(self) -> Iterator[Callable[[], T]]:
        """All records in order, each parsed by a call, which raises UserError if it is malformed."""
        return (functools.partial(self._record, i, raw) for i, raw in enumerate(self.all_raw()))

    def raw(self, i: int) -> bytes:
        """The JSON text of a record."""
        with open(self.path, "rb") as file:
            file.seek(int(self.spans.offset[i]))
            return file.read(int(self.spans.size[i]))

    def all_raw(self) -> Iterator[bytes]:
        """The JSON texts of all records, in order."""
        with open(self.path, "rb") as file:
            for offset, size in zip(self.spans.offset.tolist(), self.spans.size.tolist(), strict=True):
                file.seek(offset)
                yield file.read(size)

    def part(self, start: int, stop: int) -> JsonRecords[T]:
        """Records `start` .. `stop` - 1, which keep their numbers in messages."""
        spans = Spans(self.spans.offset[start:stop], self.spans.size[start:stop])
        return dataclasses.replace(self, spans=spans, first=self.first + start)

    def _record(self, i: int, raw: bytes) -> T:
        number = self.first + i
        return self.parse(files.parse_json(raw, f"{self.path}: record {number}"), number, self.path)


def scan(path: str | pathlib.Path) -> Spans:
    """Find the records of a JSON list, or of a file with one object per line, in the memory of a few chunks.

    In the latter a broken line is found only when it is read.

    Raises:
      UserError: missing file, not UTF-8, broken JSON (line and column are named), neither a list nor lines of objects
        (the message says what the file looks like), or no record.
    """
    path = pathlib.Path(path)
    with files.opened(path) as file:
        head = file.read(files.HEAD)
        if guess := files.looks_like(head):
            raise errors.UserError(f"{path}: {WANTED}; {guess}")
        file.seek(0)
        spans = _scan_lines(path, file) if _has_lines(path, head, file) else _ListScan(path, file).spans()
        found = list(itertools.islice(spans, limits.RECORDS + 1))
    if len(found) > limits.RECORDS:
        raise errors.UserError(f"{path}: more than {limits.RECORDS:,} records; split the file")
    if not found:
        raise errors.UserError(f"{path}: {WANTED}, but holds none")
    offset, size = np.asarray(found, np.int64).T
    return Spans(np.ascontiguousarray(offset), np.ascontiguousarray(size))


def read(path: str | pathlib.Path, parse: Parse[T]) -> JsonRecords[T]:
    """Scan a file; see `scan`."""
    return JsonRecords(str(path), parse, scan(path))


def _has_lines(path: pathlib.Path, head: bytes, file: BinaryIO) -> bool:
    """Whether the file has one object per line."""
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return False
    if path.suffix in _LINES:
        return True
    first, *more = _whole_lines(path, file)
    file.seek(0)
    try:
        files.parse_json(first, "")
    except errors.UserError as e:
        raise errors.UserError(f"{path}: {WANTED}; it begins with an object of several lines") from e
    if not more:
        raise errors.UserError(f"{path}: {WANTED}, not a lone object")
    return True


def _whole_lines(path: pathlib.Path, file: BinaryIO) -> list[bytes]:
    """The first two lines that are not empty."""
    found: list[bytes] = []
    while len(found) < 2 and (line := _line(path, file)):
        found += [line] if line.strip() else []
    return found


def _line(path: pathlib.Path, file: BinaryIO) -> bytes:
    line = file.readline(limits.RECORD_BYTES + 1)
    if len(line) > limits.RECORD_BYTES:
        raise errors.UserError(f"{path}: {WANTED}; it has a line of more than {limits.RECORD_BYTES:,} bytes")
    return line


def _scan_lines(path: pathlib.Path, file: BinaryIO) -> Iterator[tuple[int, int]]:
    offset = 0
    while line := _line(path, file):
        if line.strip():
            yield offset, len(line.rstrip(b"\r\n"))
        offset += len(line)


class _ListScan:
    """Scans the JSON list in `file`, one window of text at a time."""

    def __init__(self, path: pathlib.Path, file: BinaryIO):
        self._path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._ascii = "", True
        self._at = 0  # position in the window
        self._offset = 0  # bytes of the file before that position
        self._line, self._column = 1, 1  # of the window's start
        self._done = False

    def spans(self) -> Iterator[tuple[int, int]]:
        self._more()
        if self._text.startswith("\ufeff"):
            self._advance(1)
        if (start := self._next()) != "[":
            raise errors.UserError(f"{self._path}: {WANTED}{self._kind(start)}")
        self._advance(1)
        if self._next() == "]":
            return
        while True:
            self._next()
            yield self._offset, self._value()
            separator = self._next()
            if separator not in (",", "]"):
                raise self._broken("Expecting ',' delimiter")
            self._advance(1)
            if separator == "]":
                break
        if self._next():
            raise self._broken("Extra data")

    def _more(self) -> None:
        data = self._file.read(CHUNK)
        self._done = not data
        try:
            text = self._decoder.decode(data, final=self._done)
        except UnicodeDecodeError as e:
            byte = self._file.tell() - len(data) + e.start
            raise errors.UserError(f"{self._path}: not UTF-8 text at byte {byte}; {files.SAVE_AS_UTF8}") from e
        self._line, self._column = self._place()
        self._text = self._text[self._at :] + text
        self._at, self._ascii = 0, self._text.isascii()

    def _next(self) -> str:
        """Skip white space and return the next character; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._advance(space.end() - self._at if space else 0)
            if self._at < len(self._text):
                return self._text[self._at]
            if self._done:
                return ""
            self._more()

    def _value(self) -> int:
        """Skip the value at the current position; returns its size in bytes."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or self._done:
                    return self._advance(end - self._at)
            except RecursionError as e:
                raise self._broken("nested too deeply") from e
            except json.JSONDecodeError as e:
                if self._done or len(self._text) - self._at > limits.RECORD_BYTES:
                    self._advance(e.pos - self._at)
                    raise self._broken(e.msg) from e
            except ValueError as e:
                raise self._broken("a number of more than 4,300 digits") from e
            self._more()  # the value may continue after the window

    def _advance(self, characters: int) -> int:
        end = self._at + characters
        size = characters if self._ascii else len(self._text[self._at : end].encode())
        self._at, self._offset = end, self._offset + size
        return size

    def _place(self) -> tuple[int, int]:
        """Line and column, both from 1."""
        newlines = self._text.count("\n", 0, self._at)
        if newlines:
            return self._line + newlines, self._at - self._text.rfind("\n", 0, self._at)
        return self._line, self._column + self._at

    def _broken(self, reason: str) -> errors.UserError:
        line, column = self._place()
        return errors.UserError(f"{self._path}: broken JSON at line {line}, column {column}: {reason}")

    def _kind(self, start: str) -> str:
        """What kind of file it is instead, by its first character and line."""
        if not start:
            return ", but is empty"
        while not self._done and len(self._text) - self._at < files.HEAD:
            self._more()
        line = self._text[self._at :].split("\n", 1)[0]
        for mark, kind in ((",", "commas"), ("\t", "tabs"), (";", "semicolons")):
            if start not in "{-#<" and mark in line:
                return f"; this looks like a table (CSV) with {kind}: write each of its rows as a JSON object"
        return f"; it begins with {errors.short(line.strip(), 40)}"


_DECODER = json.JSONDecoder()
