"""Rows of CSV and TSV files as people download and save them: with or without a byte order mark, with line ends of
Linux or Windows, with line breaks in quotes, and with comments (`# ...`) above the heading.

Read a line at a time, so a file may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import csv
import io
import pathlib
from typing import NamedTuple

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}  # spreadsheets write these, by country


class Row(NamedTuple):
    """cells: text by column. origin: names file and line in messages."""

    cells: dict[str, str]
    origin: str

    def filled(self, column: str) -> str:
        """The text of a column.

        Raises:
          UserError: it is empty.
        """
        if not self.cells[column].strip():
            raise errors.UserError(f"{self.origin}: {column!r} is empty")
        return self.cells[column]


def read(path: pathlib.Path, columns: Sequence[str], separator: str = ",") -> Iterator[Row]:
    """The rows of a file whose heading has at least `columns`; empty lines are no rows.

    Raises:
      UserError: missing file, not UTF-8, no heading, another separator, a column is missing or comes twice, a row of
        another number of cells, a quote that is not closed, or a line or row beyond the limits.
    """
    csv.field_size_limit(limits.RECORD_BYTES)
    with files.opened(path) as file:
        if guess := files.looks_like(file.read(files.HEAD)):
            raise errors.UserError(f"{path}: must hold a table{_with(columns, ' with')}; {guess}")
        file.seek(0)
        lines = _Lines(path, file)
        table = csv.reader(lines, delimiter=separator, strict=True)
        heading: list[str] = []
        count = 0
        while True:
            first = lines.number + 1
            try:
                cells = next(table, None)
            except csv.Error as e:
                raise errors.UserError(f"{path}: line {first}: broken table: {e}; download the file again") from e
            if cells is None:
                break
            if not cells:
                continue
            if not heading:
                heading = _heading(path, cells, columns, separator)
                continue
            count += 1
            if count > limits.RECORDS:
                raise errors.UserError(f"{path}: more than {limits.RECORDS:,} rows; split the file")
            if len(cells) != len(heading):
                raise errors.UserError(
                    f"{path}: line {first}: {len(cells)} cells under {len(heading)} columns; is a quote missing?"
                )
            yield Row(dict(zip(heading, cells, strict=True)), f"{path}: line {first}")
    if not heading:
        raise errors.UserError(f"{path}: no heading{_with(columns, '; it must have')}")


def _with(columns: Sequence[str], wanted: str) -> str:
    return f"{wanted} the columns {', '.join(columns)}" if columns else ""


class _Lines:
    """The lines of a file as text; `number` is that of the last one, from 1. Comments above the heading are empty."""

    def __init__(self, path: pathlib.Path, file: io.BufferedReader):
        self._path, self._file = path, file
        self.number = 0
        self._above = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(limits.RECORD_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > limits.RECORD_BYTES:
            raise errors.UserError(
                f"{self._path}: line {self.number} has more than {limits.RECORD_BYTES:,} bytes; is it the right file?"
            )
        try:
            text = line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as e:
            raise errors.UserError(f"{self._path}: line {self.number} is not UTF-8 text; {files.SAVE_AS_UTF8}") from e
        if self._above and text.startswith("#"):
            return "\n"
        self._above = self._above and not text.strip()
        return text


def _heading(path: pathlib.Path, cells: list[str], columns: Sequence[str], separator: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(names) == 1 and (others := [other for other in SEPARATORS if other in names[0]]):
        raise errors.UserError(
            f"{path}: its cells are separated by {SEPARATORS[others[0]]}; save it with {SEPARATORS[separator]} between"
            " them"
        )
    for name in columns:
        if name not in names:
            raise errors.UserError(
                f"{path}: no column {name!r}{errors.nearest(name, names, label='there are')}; get the published file"
            )
        if names.count(name) > 1:
            raise errors.UserError(f"{path}: two columns {name!r}; get the published file")
    return names
