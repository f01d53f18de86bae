"""Conversations in JSON files of any size: scanned once without being held in memory, then read one by one by number."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any, BinaryIO

from jaxtyping import Int64
import numpy as np

from vlguard_jax import errors
from vlguard_jax import types

CHUNK = 1 << 23  # bytes read at once
LARGEST = 1 << 26  # characters of one record; beyond it the file is taken for broken
_SPACE = " \t\r\n"
_LINES = (".jsonl", ".ndjson")

Parse = Callable[[Any, int, str], types.Record]


@dataclasses.dataclass(frozen=True)
class Spans:
    """Where each record of a file stands, in bytes."""

    offset: Int64[np.ndarray, " n"]
    size: Int64[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class JsonRecords:
    """The records of a file by number; reads only what is asked for. `first` is the number of the first one in the file.

    `parse(value, number, path)` turns one JSON value into a record and raises UserError for a malformed one.
    """

    path: str
    parse: Parse
    spans: Spans
    first: int = 0

    def __len__(self) -> int:
        return len(self.spans.offset)

    def __getitem__(self, i: int) -> types.Record:
        return self._record(i, self.raw(i))

    def __iter__(self) -> Iterator[types.Record]:
        return (read() for read in self.each())

    def each(self) -> Iterator[Callable[[], types.Record]]:
        """One after the other, each to be parsed by a call, which raises if it is malformed."""
        return (functools.partial(self._record, i, raw) for i, raw in enumerate(self.all_raw()))

    def raw(self, i: int) -> bytes:
        """The JSON text of a record."""
        with open(self.path, "rb") as file:
            file.seek(int(self.spans.offset[i]))
            return file.read(int(self.spans.size[i]))

    def all_raw(self) -> Iterator[bytes]:
        """The JSON texts of all records, one after the other."""
        with open(self.path, "rb") as file:
            for offset, size in zip(self.spans.offset.tolist(), self.spans.size.tolist(), strict=True):
                file.seek(offset)
                yield file.read(size)

    def part(self, start: int, stop: int) -> JsonRecords:
        """Records `start` .. `stop` - 1, which keep their numbers in messages."""
        spans = Spans(self.spans.offset[start:stop], self.spans.size[start:stop])
        return dataclasses.replace(self, spans=spans, first=self.first + start)

    def _record(self, i: int, raw: bytes) -> types.Record:
        number = self.first + i
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as e:  # only a JSON-lines file gets here with a broken line
            raise errors.UserError(f"{self.path}: record {number} is broken JSON: {e}") from e
        return self.parse(value, number, self.path)


def scan(path: str | pathlib.Path) -> Spans:
    """Find the records of a JSON list, or of a file with one record a line (.jsonl). Memory: a few chunks, whatever the size.

    Raises:
      UserError: missing file, not UTF-8, broken JSON (line and column are named), or not a non-empty list.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.UserError(f"{path}: no such file")
    with open(path, "rb") as file:
        found = list(_scan_lines(file) if path.suffix in _LINES else _ListScan(path, file).spans())
    if not found:
        raise errors.UserError(f"{path}: must hold a JSON list of records, not an empty one")
    offset, size = np.asarray(found, np.int64).T
    return Spans(np.ascontiguousarray(offset), np.ascontiguousarray(size))


def read(path: str | pathlib.Path, parse: Parse) -> JsonRecords:
    """Scan a file; see `scan`."""
    return JsonRecords(str(path), parse, scan(path))


def _scan_lines(file: BinaryIO) -> Iterator[tuple[int, int]]:
    offset = 0
    for line in file:
        if line.strip():
            yield offset, len(line)
        offset += len(line)


class _ListScan:
    """Walks through the JSON list in `file`, a window of text at a time."""

    def __init__(self, path: pathlib.Path, file: BinaryIO):
        self._path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0  # place in the window
        self._offset = 0  # bytes of the file before that place
        self._line, self._column = 1, 1  # of that place
        self._done = False

    def spans(self) -> Iterator[tuple[int, int]]:
        self._more()
        if self._text.startswith("\ufeff"):
            self._advance(1)
        if (start := self._next()) != "[":
            raise errors.UserError(f"{self._path}: must hold a JSON list of records, not {_kind(start)}")
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
            raise errors.UserError(f"{self._path}: not UTF-8 text at byte {byte}") from e
        self._text = self._text[self._at :] + text
        self._at = 0

    def _next(self) -> str:
        """Go to the next character that is not white space and return it; "" at the end."""
        while True:
            rest = len(self._text)
            at = self._at
            while at < rest and self._text[at] in _SPACE:
                at += 1
            self._advance(at - self._at)
            if self._at < rest:
                return self._text[self._at]
            if self._done:
                return ""
            self._more()

    def _value(self) -> int:
        """Go behind the value that stands here; returns its size in bytes."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or self._done:
                    return self._advance(end - self._at)
            except RecursionError as e:
                raise self._broken("nested too deeply") from e
            except json.JSONDecodeError as e:
                if self._done or len(self._text) - self._at > LARGEST:
                    self._advance(e.pos - self._at)
                    raise self._broken(e.msg) from e
            self._more()  # the value may go on behind the window

    def _advance(self, characters: int) -> int:
        passed = self._text[self._at : self._at + characters]
        size = len(passed) if passed.isascii() else len(passed.encode())
        newlines = passed.count("\n")
        self._line += newlines
        self._column = len(passed) - passed.rfind("\n") if newlines else self._column + len(passed)
        self._at += characters
        self._offset += size
        return size

    def _broken(self, reason: str) -> errors.UserError:
        return errors.UserError(f"{self._path}: broken JSON at line {self._line}, column {self._column}: {reason}")


_DECODER = json.JSONDecoder()


def _kind(start: str) -> str:
    return {"": "nothing", "{": "an object", '"': "a text"}.get(start, "something else")
