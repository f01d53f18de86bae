"""VLGuard's own files: train.json and test.json, their conversion to conversations, and the three test subsets.

Source: ys-zong/VLGuard convert_to_llava_format.py (seeded conversion) and utils/utils.py:12-29 (subsets). Record: `id`,
`image`, `safe`, `instr-resp`; an unsafe picture has one {instruction, response}, a safe one {safe_instruction,
response} and {unsafe_instruction, response}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
import dataclasses
import pathlib
import random
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import types
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.families.chat import templates

SPLITS = ("train", "test")
SUBSETS = {"unsafes": "instruction", "safe_unsafes": "unsafe_instruction", "safe_safes": "safe_instruction"}
COUNTS = {"train": {"unsafe": 1023, "safe": 977}, "test": {"unsafe": 442, "safe": 558}}
CONVERSION_SEED = 0
NOTE_FILE = "vlguard.json"


@dataclasses.dataclass(frozen=True)
class Item:
    """One record. `pairs` are (kind of instruction, instruction, response) in file order."""

    id: str
    image: str
    safe: bool
    pairs: tuple[tuple[str, str, str], ...]
    category: str | None = None
    subcategory: str | None = None
    origin: str = ""


@dataclasses.dataclass(frozen=True)
class EvalItem:
    """One question of a test subset. `image` is relative to the picture folder, `response` is the record's answer."""

    id: str
    image: str
    question: str
    response: str
    category: str | None
    subcategory: str | None
    subset: str


def read_items(path: str | pathlib.Path, split: str) -> list[Item]:
    """Read the records of `split` from a JSON file, or from `<split>.json` in a folder, in file order.

    Raises:
      UserError: missing file, broken JSON or a record with a wrong or missing field; file and record are named.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / f"{split}.json"
    return list(json_records.read(path, parse))


def read_each(path: str | pathlib.Path, split: str) -> list[Item | errors.UserError]:
    """As `read_items`, but with the error of a malformed record in its place.

    Raises:
      UserError: missing file or broken JSON.
    """
    path = pathlib.Path(path)
    return [
        _attempt(read) for read in json_records.read(path / f"{split}.json" if path.is_dir() else path, parse).each()
    ]


def check_counts(items: Sequence[Item], split: str, path: str | pathlib.Path) -> None:
    """Compare the numbers of safe and unsafe records with the published ones.

    Raises:
      UserError: they differ.
    """
    found = Counter("safe" if item.safe else "unsafe" for item in items)
    if dict(found) != COUNTS[split]:
        wanted = COUNTS[split]
        raise errors.UserError(
            f"{path}: {found['unsafe']} unsafe and {found['safe']} safe records, VLGuard's {split} split has"
            f" {wanted['unsafe']} and {wanted['safe']}: download the file again"
        )


def convert(items: Sequence[Item | errors.UserError], source: str = "vlguard") -> list[types.Record | errors.UserError]:
    """One conversation per record, with the two pairs of a safe one in the order that the reference draws with seed 0.

    The error of a malformed record stays in its place, and draws nothing.
    """
    rng = random.Random(CONVERSION_SEED)
    converted: list[types.Record | errors.UserError] = []
    for item in items:
        if isinstance(item, errors.UserError):
            converted.append(item)
            continue
        pairs = list(item.pairs)
        if item.safe:
            rng.shuffle(pairs)
        turns = []
        for i, (_, instruction, response) in enumerate(pairs):
            turns += [
                types.Turn("human", instruction if i else templates.IMAGE_TAG + instruction),
                types.Turn("gpt", response),
            ]
        converted.append(
            types.Record(
                id=item.id,
                turns=tuple(turns),
                images=(item.image,),
                source=source,
                category=item.category,
                subcategory=item.subcategory,
                origin=item.origin,
            )
        )
    return converted


def eval_items(items: Sequence[Item], subset: str) -> list[EvalItem]:
    """The questions of a test subset, in file order.

    Raises:
      UserError: unknown subset.
    """
    if subset not in SUBSETS:
        raise errors.UserError(f"VLGuard has no subset {subset!r}{errors.nearest(subset, SUBSETS)}")
    return [
        EvalItem(item.id, item.image, instruction, response, item.category, item.subcategory, subset)
        for item in items
        for kind, instruction, response in item.pairs
        if kind == SUBSETS[subset]
    ]


def subset_count(subset: str) -> int:
    """Number of questions in `subset` of the published test split."""
    return COUNTS["test"]["unsafe" if subset == "unsafes" else "safe"]


def is_stand_in(folder: str | pathlib.Path) -> bool:
    """Whether the pictures in `folder`, or in the folder above it, were drawn by `prepare --stand_in_images`."""
    folder = pathlib.Path(folder)
    notes = [place for place in (folder, folder.parent) if (place / NOTE_FILE).is_file()]
    return bool(notes) and bool(read_note(notes[0]).get("stand_in", False))


def read_note(folder: str | pathlib.Path) -> dict[str, Any]:
    """The note that `prepare` wrote about `folder`.

    Raises:
      UserError: the note is missing or broken.
    """
    path = pathlib.Path(folder) / NOTE_FILE
    return files.read_object(path)


def _attempt(read: Callable[[], Item]) -> Item | errors.UserError:
    try:
        return read()
    except errors.UserError as e:
        return e


def parse(value: Any, position: int, path: str) -> Item:
    """One record of VLGuard's JSON, number `position` of `path`.

    Raises:
      UserError: a wrong or missing field.
    """
    id_, origin = records.name(value, position, path)
    safe = value.get("safe")
    if not isinstance(safe, bool):
        raise errors.UserError(f"{origin}: 'safe' must be true or false")
    kinds = ("safe_instruction", "unsafe_instruction") if safe else ("instruction",)
    pairs = value.get("instr-resp")
    if not isinstance(pairs, list) or len(pairs) != len(kinds) or not all(isinstance(pair, dict) for pair in pairs):
        raise errors.UserError(f"{origin}: 'instr-resp' must be a list of {len(kinds)} instruction-response pairs")
    return Item(
        id=id_,
        image=records.check_picture_path(records.text_field(value, "image", origin), origin),
        safe=safe,
        pairs=tuple(
            (kind, records.text_field(pair, kind, origin), records.text_field(pair, "response", origin))
            for kind, pair in zip(kinds, pairs, strict=True)
        ),
        category=None if safe else records.text_field(value, "harmful_category", origin),
        subcategory=None if safe else records.text_field(value, "harmful_subcategory", origin),
        origin=origin,
    )
