"""The steps of a training store as folders: what shows that one is none, or damaged, and the names of damaged ones."""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import itertools
import os
import pathlib
import re
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import folders
from vlguard_jax.checkpoints import header

_ASIDE = re.compile(r"[0-9]+\.broken-[0-9]+")
_NOTES = ("_CHECKPOINT_METADATA", "state/_METADATA")  # of Orbax, in every step


class Damaged(errors.UserError):
    """A step is not what was saved."""


def check(folder: pathlib.Path) -> None:
    """Raise UserError unless every entry that looks like a step is one: Orbax follows links, deletes old steps and
    blocks on pipes."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise errors.UserError(
            f"{folder} must be a folder, not a {'link' if folder.is_symlink() else 'file'}; choose another --workdir"
        )
    for step in folder.iterdir():
        try:
            number = int(step.name)  # as Orbax does
        except ValueError:
            continue
        name = errors.short(step.name)
        if str(number) != step.name or not 0 <= number < 2**31:
            raise errors.UserError(
                f"{folder}: {name} is not the number of a step; remove it, or choose another --workdir"
            )
        if step.is_symlink() or not step.is_dir():
            raise errors.UserError(f"{folder}: step {name} is not a folder; remove it, or choose another --workdir")
        if odd := next(filter(folders.odd, step.rglob("*")), None):
            what = "a link" if odd.is_symlink() else "a pipe or a device"
            raise errors.UserError(
                f"{folder}: step {name} holds {what}, {errors.short(odd.name)}; remove it, or choose another --workdir"
            )


def visibly_broken(step: pathlib.Path) -> str:
    """What shows without its arrays that a step is damaged, in a line; "" if nothing does."""
    try:
        record = files.read_object(step / "meta" / "metadata", finite=False)
        for name in _NOTES:
            files.read_object(step / name, finite=False)
        if not (step / "state" / "manifest.ocdbt").is_file():
            raise errors.UserError(f"{step}/state/manifest.ocdbt: no such file")
        if record.get("format_version") == header.FORMAT_VERSION:
            check_record(record, int(step.name), str(step))
    except errors.UserError as e:
        return str(e) if isinstance(e, Damaged) else f"{step}: damaged: {e}"
    return ""


def unfinished(step: pathlib.Path) -> bool:
    """Whether a step that is written in its place was not written to the end: neither Orbax's last file nor the time
    of its end is there."""
    if (step / "commit_success.txt").is_file():
        return False
    if not os.path.lexists(step / _NOTES[0]):
        return True
    with contextlib.suppress(errors.UserError):
        return files.read_object(step / _NOTES[0], finite=False).get("commit_timestamp_nsecs") is None
    return False


def aside(folder: pathlib.Path) -> list[str]:
    """The names of steps that were set aside."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if _ASIDE.fullmatch(entry.name))


def told_aside(why: str, folder: pathlib.Path, name: str) -> str:
    """What to say of a step that is set aside as `name`."""
    return f"{why}; set aside as {folder.name}/{name}"


def none_whole(why: str, folder: pathlib.Path) -> str:
    """What to say where no step is whole; why: of the newest."""
    return f"{why}; no other step here is whole: put a copy back, or remove {folder} to start from the beginning"


def free_name(folder: pathlib.Path, step: int) -> str:
    """A name in the folder under which a step is none."""
    names = (f"{step}.broken-{i}" for i in itertools.count(1))
    return next(name for name in names if not os.path.lexists(folder / name))


def check_record(record: Mapping[str, Any], step: int, where: str) -> None:
    """Raise Damaged unless a record has the form that `Store.save` writes."""
    arrays = record.get("arrays")
    whole = isinstance(arrays, dict) and all(
        isinstance(each, dict)
        and set(each) == {"shape", "dtype", "checksum"}
        and isinstance(each["shape"], list)
        and all(type(size) is int and size >= 0 for size in each["shape"])
        and isinstance(each["dtype"], str)
        and isinstance(each["checksum"], str)
        for each in arrays.values()
    )
    own = (record.get("kind"), record.get("step")) == ("training", step) and type(record.get("step")) is int
    texts = all(isinstance(record[name], str) for name in ("config_hash", "base_sha256") if name in record)
    if not (whole and own and texts and isinstance(record.get("config"), dict)):
        raise Damaged(f"{where}: damaged record: it is not what a training of this program writes")
