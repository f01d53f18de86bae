"""The folder that training and evaluation read: train.json, test.json, train/, test/ and vlguard.json, which says what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil

from vlguard_jax import errors
from vlguard_jax.data import standin
from vlguard_jax.data import vlguard

SCHEMA = 1
ACCESS = (
    "the pictures are gated: accept the terms at huggingface.co/datasets/ys-zong/VLGuard, set HF_TOKEN, download train.zip and test.zip,"
    " unzip them side by side and name that folder with --images"
)


@dataclasses.dataclass(frozen=True)
class Split:
    """What was found of one split. `pictures` counts distinct paths."""

    name: str
    unsafe: int
    safe: int
    pairs: int
    pictures: int


def prepare(metadata: pathlib.Path, out: pathlib.Path, images: pathlib.Path | None, stand_in: bool) -> list[Split]:
    """Check VLGuard's files and lay them out in `out`. The folder appears whole or not at all.

    With `stand_in` the pictures are drawn; else those in `images`/train and `images`/test (`images` is `metadata` if not given) are
    linked to.

    Raises:
      UserError: records or pictures are missing, their number is not the published one, or `out` holds something else.
    """
    if stand_in and images is not None:
        raise errors.UserError("--images and --stand_in_images exclude each other: give one of them")
    if not metadata.is_dir():
        raise errors.UserError(f"{metadata}: no such folder (--metadata)")
    items = {name: vlguard.read_items(metadata, name) for name in vlguard.SPLITS}
    for name in vlguard.SPLITS:
        vlguard.check_counts(items[name], name, metadata / f"{name}.json")
    splits = [_count(name, items[name]) for name in vlguard.SPLITS]
    note = _note(metadata, splits, stand_in)
    if _is_ready(out, note):
        return splits
    source = None if stand_in else (images or metadata).resolve()
    if source is not None:
        _check_pictures(items, source)
    beside = out.with_name(f"{out.name}.partial")
    if beside.exists():
        shutil.rmtree(beside)  # left by a run that was stopped
    beside.mkdir(parents=True)
    for name in vlguard.SPLITS:
        shutil.copyfile(metadata / f"{name}.json", beside / f"{name}.json")
        if source is None:
            standin.write_all(items[name], beside / name)
        else:
            (beside / name).symlink_to(source / name, target_is_directory=True)
    (beside / vlguard.NOTE_FILE).write_text(json.dumps(note, indent=1) + "\n")
    beside.rename(out)
    return splits


def _count(name: str, items: list[vlguard.Item]) -> Split:
    safe = sum(item.safe for item in items)
    return Split(name, len(items) - safe, safe, sum(len(item.pairs) for item in items), len({item.image for item in items}))


def _note(metadata: pathlib.Path, splits: list[Split], stand_in: bool) -> dict:
    hashes = {f"{s.name}.json": hashlib.sha256((metadata / f"{s.name}.json").read_bytes()).hexdigest() for s in splits}
    return {"schema": SCHEMA, "stand_in": stand_in, "counts": [dataclasses.asdict(s) for s in splits], "sha256": hashes}


def _is_ready(out: pathlib.Path, note: dict) -> bool:
    """Whether `out` already holds exactly this.

    Raises:
      UserError: it holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        if out.exists():
            out.rmdir()
        return False
    path = out / vlguard.NOTE_FILE
    if path.is_file() and vlguard.read_note(out) == note:
        return True
    raise errors.UserError(f"{out} holds something else already: remove it, or name another folder with --out")


def _check_pictures(items: dict[str, list[vlguard.Item]], source: pathlib.Path) -> None:
    paths = [f"{name}/{item.image}" for name in items for item in items[name]]
    missing = sorted({path for path in paths if not (source / path).is_file()})
    if missing:
        raise errors.UserError(
            f"{source}: {len(missing)} of {len(set(paths))} pictures are missing, first: {', '.join(missing[:3])}; {ACCESS},"
            " or rehearse with --stand_in_images"
        )
