"""`prepare vlguard`: writes a folder of train.json, test.json, train/, test/, tfds/ and vlguard.json, which describes
them.

Training and evaluation read the files. tfds/ is the same as ArrayRecord, each split with all its pictures in one or a
few files: for buckets, for other programs that read TensorFlow Datasets, and for training with source format "tfds".
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil

from rich import table

from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax import terminal
from vlguard_jax.data import picture_check
from vlguard_jax.data import pictures
from vlguard_jax.data import vlguard
from vlguard_jax.data.tfds import reader
from vlguard_jax.preparing import stand_in_pictures

SCHEMA = 1
PICTURES = {"train": 1999, "test": 1000}  # distinct ones: two train records share theirs
RECORDS = pathlib.Path("tfds", reader.NAME, reader.VERSION)
OWN = "Records of one's own in the form of VLGuard, prepared with vlguard_jax; they are not VLGuard."
ACCESS = (
    "the pictures are gated: accept the terms at huggingface.co/datasets/ys-zong/VLGuard, set HF_TOKEN, download"
    " train.zip and test.zip and name their folder with --images; they may stay zipped"
)


@dataclasses.dataclass(frozen=True)
class Split:
    """Counts of one split. `pictures` counts distinct paths."""

    name: str
    unsafe: int
    safe: int
    pairs: int
    pictures: int


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `prepare` found or wrote.

    `records`: folder of the ArrayRecord form. `was_ready`: nothing had to be written.
    """

    splits: tuple[Split, ...]
    records: pathlib.Path
    was_ready: bool


def run(metadata: str, out: str, images: str, stand_in: bool, any_size: bool) -> None:
    """Prepare the folder `out` and say what is in it; see `prepare`.

    Raises:
      UserError: as there.
    """
    folder = pathlib.Path(images) if images else None
    prepared = prepare(pathlib.Path(metadata), pathlib.Path(out), folder, stand_in, any_size=any_size)
    kind = "stand-in pictures" if stand_in else "pictures"
    shown = table.Table(
        "split",
        "unsafe",
        "safe",
        "records",
        "question-answer pairs",
        f"distinct {kind}",
        title=f"{'Records in the form of VLGuard' if any_size else 'VLGuard'} in {out}",
    )
    for split in prepared.splits:
        numbers = (split.unsafe, split.safe, split.unsafe + split.safe, split.pairs, split.pictures)
        shown.add_row(split.name, *(f"{n:,}" for n in numbers))
    terminal.console().print(shown)
    terminal.say(f"As ArrayRecord in {prepared.records}, for the source format tfds.")
    if prepared.was_ready:
        terminal.say("Everything was there already: nothing was written.")
    if stand_in:
        terminal.say("Results made with these pictures are marked stand_in and say nothing about real pictures.")
        terminal.say(f"For those: {ACCESS}.")


def prepare(
    metadata: pathlib.Path, out: pathlib.Path, images: pathlib.Path | None, stand_in: bool, *, any_size: bool = False
) -> Prepared:
    """Check VLGuard's files and lay them out in `out`. The folder appears whole or not at all.

    With `stand_in` the pictures are drawn; else they come from `images` (default: `metadata`): the folders train and
    test are linked, train.zip and test.zip unpacked. any_size: records of one's own in the same form, as `curate`
    writes them.

    Raises:
      UserError: records or pictures are missing or not readable, their number (unless `any_size`) is not the published
        one, or `out` holds something else.
    """
    if stand_in and images is not None:
        raise errors.UserError("--images and --stand_in_images exclude each other: give one of them")
    if not metadata.is_dir():
        raise errors.UserError(f"{metadata}: no such folder (--metadata)")
    items = {name: vlguard.read_items(metadata, name) for name in vlguard.SPLITS}
    splits = tuple(_count(name, items[name]) for name in vlguard.SPLITS)
    if not any_size:
        for split in splits:
            _check_size(items[split.name], split, metadata / f"{split.name}.json")
    source = None if stand_in else (images or metadata).resolve()
    note = _note(metadata, splits, stand_in or (any_size and source is not None and vlguard.is_stand_in(source)))
    description = OWN if any_size else ""
    laid_out = _is_ready(out, note)
    if laid_out and _has_records(out, note):
        return Prepared(splits, out / RECORDS, True)
    if laid_out:  # by an earlier version, which wrote no records
        write_records(out, description)
        return Prepared(splits, out / RECORDS, False)
    if source is not None:
        _check_pictures(items, source, drawn=any_size)
    with folders.new_folder(out) as beside:
        for name in vlguard.SPLITS:
            shutil.copyfile(metadata / f"{name}.json", beside / f"{name}.json")
            if source is None:
                stand_in_pictures.write_all(items[name], beside / name)
            else:
                _lay_out(items[name], source, beside / name)
        (beside / vlguard.NOTE_FILE).write_text(json.dumps(note, indent=1) + "\n")
        write_records(beside, description)
    return Prepared(splits, out / RECORDS, False)


def _count(name: str, items: list[vlguard.Item]) -> Split:
    safe = sum(item.safe for item in items)
    return Split(
        name, len(items) - safe, safe, sum(len(item.pairs) for item in items), len({item.image for item in items})
    )


def _check_size(items: list[vlguard.Item], found: Split, path: pathlib.Path) -> None:
    """Raise UserError if this is not a whole split of VLGuard."""
    vlguard.check_counts(items, found.name, path)
    if found.pictures != PICTURES[found.name]:
        raise errors.UserError(
            f"{path}: names {found.pictures} pictures, VLGuard's {found.name} split has {PICTURES[found.name]}:"
            " download the file again"
        )


def _note(metadata: pathlib.Path, splits: tuple[Split, ...], stand_in: bool) -> dict:
    hashes = {f"{s.name}.json": hashlib.sha256((metadata / f"{s.name}.json").read_bytes()).hexdigest() for s in splits}
    return {"schema": SCHEMA, "stand_in": stand_in, "counts": [dataclasses.asdict(s) for s in splits], "sha256": hashes}


def _is_ready(out: pathlib.Path, note: dict) -> bool:
    """Whether `out` already holds exactly this.

    Raises:
      UserError: it holds something else, or is a link.
    """
    if not os.path.lexists(out) or (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        return False
    path = out / vlguard.NOTE_FILE
    if path.is_file() and vlguard.read_note(out) == note:
        return True
    folders.check_no_link(out)
    raise errors.UserError(f"{out} holds something else already: remove it, or name another folder with --out")


def _has_records(out: pathlib.Path, note: dict) -> bool:
    """Whether the ArrayRecord form in `out` was made from exactly these files.

    Raises:
      UserError: it was made from others, or is not whole.
    """
    if not (out / RECORDS).exists():
        return False
    for name in vlguard.SPLITS:
        found = reader.open_prepared(out / RECORDS, name)
        if (found.stand_in, found.sha256) != (note["stand_in"], note["sha256"][f"{name}.json"]):
            raise errors.UserError(f"{out / RECORDS} was made from other files: remove it and run prepare again")
    return True


def write_records(folder: pathlib.Path, description: str = "") -> None:
    """Write the ArrayRecord form of `folder` into it; it appears whole or not at all.

    description: of a set of the same form that is not VLGuard.
    """
    import tensorflow_datasets as tfds  # late: slow to import

    from vlguard_jax.preparing.tfds.vlguard import vlguard_dataset_builder

    tfds.disable_progress_bar()
    how = tfds.download.DownloadConfig(
        manual_dir=folder, compute_stats=tfds.download.ComputeStatsMode.SKIP, try_download_gcs=False
    )
    with folders.scratch(folder, "tfds") as beside:
        builder = vlguard_dataset_builder.Builder(data_dir=beside, file_format="array_record", description=description)
        with contextlib.redirect_stdout(io.StringIO()):  # it announces downloads of unknown size, but downloads nothing
            builder.download_and_prepare(download_dir=beside / "downloads", download_config=how)
        (folder / RECORDS).parent.mkdir(parents=True, exist_ok=True)
        folders.take(beside / reader.NAME / reader.VERSION, folder / RECORDS)


def _check_pictures(items: dict[str, list[vlguard.Item]], source: pathlib.Path, *, drawn: bool) -> None:
    """drawn: whether pictures that a program drew are taken."""
    if not drawn and vlguard.is_stand_in(source):
        raise errors.UserError(
            f"{source}: its pictures are drawn stand-ins, not VLGuard's; {ACCESS}, or rehearse with --stand_in_images"
        )
    wanted = {f"{name}/{item.image}" for name in items for item in items[name]}
    store = pictures.open_store(str(source))
    bad = picture_check.check(store, sorted(wanted), "decode").bad
    missing = [name for name, reason in bad.items() if reason == picture_check.MISSING]
    if missing:
        raise errors.UserError(
            f"{source}: {len(missing)} of {len(wanted)} pictures are missing, first: {', '.join(missing[:3])}"
            f"{store.near(missing[0])}; {ACCESS}, or rehearse with --stand_in_images"
        )
    if bad:
        first = min(bad)
        raise errors.UserError(
            f"{source}: {len(bad)} of {len(wanted)} pictures are not readable, first: {first}: {bad[first]}"
        )


def _lay_out(items: list[vlguard.Item], source: pathlib.Path, folder: pathlib.Path) -> None:
    """Make `folder` the pictures of a split and nothing else: a link to their folder, or a folder of unpacked
    pictures."""
    if all((source / folder.name / item.image).is_file() for item in items):
        folder.symlink_to(source / folder.name, target_is_directory=True)
        return
    store = pictures.open_store(str(source))
    for item in items:
        (folder / item.image).parent.mkdir(parents=True, exist_ok=True)
        (folder / item.image).write_bytes(store.read(f"{folder.name}/{item.image}", origin=item.origin))
