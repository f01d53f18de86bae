"""A page on which a person judges records one by one with the keyboard: one file, offline, nothing leaves the browser.

What is judged is of its user: answers to be labelled, records to be accepted. The page keeps its work in the browser's
localStorage, and writes and reads it as a file (review.js).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from vlguard_jax.reporting import embedded
from vlguard_jax.reporting import template

TEMPLATE = "review.html"
SCRIPT = Path(__file__).with_name("review.js")
FORMATS = ("csv", "json")
# Columns that every saved file has, before those of the sheet; review.js fills them.
COLUMNS = ("key", "label", "rater", "time", "rows")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a person can say of a record.

    Attributes:
      value: as the saved file has it.
      stroke: the key that chooses it, one lower-case letter or digit; see `TAKEN`.
      text: on the button.
      meaning: a sentence for the instructions.
      edits: choosing it leads to the record's first field, not to the next record.
    """

    value: str
    stroke: str
    text: str
    meaning: str
    edits: bool = False


TAKEN = frozenset("nposuv")  # strokes of the page itself


@dataclasses.dataclass(frozen=True)
class Part:
    """A text of a record under a heading."""

    heading: str
    text: str


@dataclasses.dataclass(frozen=True)
class Field:
    """A text of a record that a person may change; `name` is its column in the saved file."""

    name: str
    heading: str
    text: str


@dataclasses.dataclass(frozen=True)
class Record:
    """One thing to judge.

    Attributes:
      key: names it in the saved file; it stands in the page's source, so it must tell nothing to be hidden.
      parts: texts to read.
      pictures: above them.
      fields: texts to change, the same names in every record of a sheet.
      constants: column of the saved file -> value, the same columns in every record of a sheet.
    """

    key: str
    parts: tuple[Part, ...]
    pictures: tuple[embedded.Picture, ...] = ()
    fields: tuple[Field, ...] = ()
    constants: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A page's content.

    Attributes:
      title: its heading.
      introduction: what to do, a paragraph each.
      noun: what a record is called, "answer".
      choices: in the order of their buttons.
      records: in the order of the page's source.
      file: how the saved file's name begins.
      format: of the saved file, one of FORMATS; either can be loaded.
      shuffle: whether everyone gets an order of their own, from their name.
      veil: whether a record is blurred until it is asked for, and cannot be judged before.
    """

    title: str
    introduction: tuple[str, ...]
    noun: str
    choices: tuple[Choice, ...]
    records: tuple[Record, ...]
    file: str
    format: str = "csv"
    shuffle: bool = True
    veil: bool = True

    @property
    def id(self) -> str:
        """Hash of what is judged and of the choices: the browser keeps the work of each sheet apart."""
        told = [dataclasses.asdict(choice) for choice in self.choices], [dataclasses.asdict(r) for r in self.records]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode("ascii")).hexdigest()[:16]


def render(sheet: Sheet) -> str:
    """The page as text.

    Its policy lets run this script alone, found by its hash, and load nothing.

    Raises:
      ValueError: two records or choices have one key, a stroke is taken, or records differ in columns.
    """
    _check(sheet)
    script = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return template.render(
        TEMPLATE,
        title=sheet.title,
        sheet=sheet,
        data=_data(sheet),
        script=script,
        script_source=f"'sha256-{digest}'",
    )


def _data(sheet: Sheet) -> str:
    """What the script needs, as JSON that ends no element."""
    value: dict[str, Any] = {
        "id": sheet.id,
        "noun": sheet.noun,
        "choices": [
            {"value": choice.value, "stroke": choice.stroke, "text": choice.text, "edits": choice.edits}
            for choice in sheet.choices
        ],
        "fields": _fields(sheet.records),
        "constants": {record.key: dict(record.constants) for record in sheet.records},
        "file": sheet.file,
        "format": sheet.format,
        "shuffle": sheet.shuffle,
        "veil": sheet.veil,
    }
    text = json.dumps(value)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _fields(records: Sequence[Record]) -> list[str]:
    return [field.name for field in records[0].fields] if records else []


def _check(sheet: Sheet) -> None:
    strokes = [choice.stroke for choice in sheet.choices]
    for names in ([r.key for r in sheet.records], [c.value for c in sheet.choices], strokes):
        if len(set(names)) < len(names):
            raise ValueError(f"a name comes twice: {sorted(names)[:20]}")
    if taken := TAKEN.intersection(strokes):
        raise ValueError(f"the page itself uses {sorted(taken)}")
    if sheet.format not in FORMATS:
        raise ValueError(f"{sheet.format!r} is not one of {FORMATS}")
    columns = {(tuple(f.name for f in record.fields), tuple(record.constants)) for record in sheet.records}
    if len(columns) != 1:
        raise ValueError(f"the records of a sheet must have the same columns, these have {sorted(columns)}")
    if twice := set(COLUMNS).intersection(*(names for names in next(iter(columns)))):
        raise ValueError(f"the page itself writes {sorted(twice)}")
