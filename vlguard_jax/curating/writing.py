"""Writes the set: VLGuard's own files and picture folders, the TFDS form, the details, and the data card.

The folder appears whole or not at all, and is replaced only where something in it would change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import folders
from vlguard_jax import limits
from vlguard_jax.curating import replies
from vlguard_jax.curating import selecting
from vlguard_jax.curating import taxonomy as taxonomy_lib
from vlguard_jax.data import vlguard

SCHEMA = 1  # of the note
FOLDER = "dataset"  # below the working directory
DETAILS, CARD = "details.jsonl", "README.md"
DESCRIBED = (
    "{title}: pictures with instructions and answers in the form of VLGuard, made with vlguard_jax by a model and not"
    " VLGuard itself. The data card is README.md of the folder that these records were made from."
)


@dataclasses.dataclass(frozen=True)
class Content:
    """All text files of the set by name, and of each split the records with their names of pictures."""

    texts: Mapping[str, str]
    splits: Mapping[str, Sequence[selecting.Chosen]]


def content(
    splits: Mapping[str, Sequence[selecting.Chosen]],
    places: Mapping[str, taxonomy_lib.Place],
    card: str,
    *,
    stand_in: bool,
) -> Content:
    """What is to be written. card: the data card, Markdown."""
    texts = {CARD: card}
    details: list[dict[str, Any]] = []
    counts = []
    for split, chosen in splits.items():
        items = [one.label.item(id_of(one), one.picture.name, places) for one in chosen]
        texts[f"{split}.json"] = json.dumps([record(item) for item in items], indent=1, ensure_ascii=False) + "\n"
        details += [_details(one, split) for one in chosen]
        counts.append(_count(split, items))
    texts[DETAILS] = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in details)
    hashes = {f"{s}.json": hashlib.sha256(texts[f"{s}.json"].encode()).hexdigest() for s in splits}
    note = {"schema": SCHEMA, "stand_in": stand_in, "counts": counts, "sha256": hashes, "curated": True}
    texts[vlguard.NOTE_FILE] = json.dumps(note, indent=1) + "\n"
    return Content(texts, splits)


def write(out: pathlib.Path, made: Content, pictures: pathlib.Path, title: str, *, tfds: bool) -> bool:
    """Write the folder `out`, or leave it if it holds just this; whether something was written.

    pictures: the folder that they are copied from.

    Raises:
      UserError: a picture was changed since it was read, or `out` is a link or not a set made by this program.
    """
    if _holds(out, made, tfds):
        return False
    todo = [(split, one) for split, chosen in made.splits.items() for one in chosen]
    with folders.new_folder(out, replace=True) as beside:
        for split, one in todo:
            target = beside / split / one.picture.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_bytes(pictures / one.picture.name, one.picture.sha256))
        for name, text in made.texts.items():
            (beside / name).write_text(text, encoding="utf-8")
        for split in made.splits:  # by the reader that training and evaluation use
            if len(vlguard.read_items(beside, split)) != len(made.splits[split]):
                raise RuntimeError(f"{split}.json does not hold what was to be written")
        if tfds:
            from vlguard_jax.preparing import vlguard_folder  # late: slow to import

            vlguard_folder.write_records(beside, DESCRIBED.format(title=title))
    return True


def id_of(one: selecting.Chosen) -> str:
    """A record's id: it stays the same whatever else is in the set."""
    return one.picture.pixels[:16]


def _holds(out: pathlib.Path, made: Content, tfds: bool) -> bool:
    if not out.is_dir() or not any(out.iterdir()):
        return False
    if not (out / vlguard.NOTE_FILE).is_file() or not vlguard.read_note(out).get("curated"):
        raise errors.UserError(
            f"{out} holds something that curate has not made: move it away, or choose another --workdir"
        )
    texts = all(
        (out / name).is_file() and (out / name).read_bytes() == text.encode() for name, text in made.texts.items()
    )
    if not texts or (out / "tfds").exists() != tfds:
        return False
    pictures = [
        (out / split / one.picture.name, one.picture) for split, chosen in made.splits.items() for one in chosen
    ]
    return all(path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == of.sha256 for path, of in pictures)


def _bytes(path: pathlib.Path, sha256: str) -> bytes:
    data = files.read_bytes(path, limits.PICTURE_BYTES)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise errors.UserError(f"{path}: was changed while this ran; run this again")
    return data


def record(item: vlguard.Item) -> dict[str, Any]:
    """A record of VLGuard's JSON."""
    pairs = [{kind: instruction, "response": response} for kind, instruction, response in item.pairs]
    harm = {} if item.safe else {"harmful_category": item.category, "harmful_subcategory": item.subcategory}
    return {"id": item.id, "image": item.image, "safe": item.safe, **harm, "instr-resp": pairs}


def _details(one: selecting.Chosen, split: str) -> dict[str, Any]:
    """What VLGuard's files have no place for: all eleven keys as replied or edited, and where the record comes from."""
    return {
        "id": id_of(one),
        "split": split,
        "image": one.picture.name,
        "image_sha256": one.picture.sha256,
        "language": one.language,
        "reviewed": one.reviewed,
        **{key: getattr(one.label, key) for key in replies.KEYS},
    }


def _count(split: str, items: Sequence[vlguard.Item]) -> dict[str, Any]:
    safe = sum(item.safe for item in items)
    pairs = sum(len(item.pairs) for item in items)
    return {"name": split, "unsafe": len(items) - safe, "safe": safe, "pairs": pairs, "pictures": len(items)}
