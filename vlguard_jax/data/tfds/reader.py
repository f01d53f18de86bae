"""Reads VLGuard back from the ArrayRecord files that its TFDS builder wrote: the records, and each picture's own bytes by name."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import hashlib
import io
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.data import pictures
from vlguard_jax.data import vlguard

NAME, VERSION = "vlguard", "1.0.0"
INFO_FILE = "dataset_info.json"
AGAIN = "run `python -m vlguard_jax.prepare vlguard` again"


class PreparedVLGuard:
    """One split of a prepared set: its records in file order, and a picture store.

    May be shared by threads and sent to other processes, each of which opens the files for itself. TFDS is imported at the first
    access to a record.
    """

    def __init__(self, folder: pathlib.Path, split: str, metadata: dict[str, Any], stamp: str):
        self.location, self.split = str(folder), split
        self.stand_in: bool = metadata["stand_in"]
        self.sha256: str = metadata["sha256"][split]  # of the JSON file that the split was made from
        self._stamp = stamp

    def items(self) -> list[vlguard.Item]:
        """The records, equal to those of the JSON file but for `origin`. The first call reads the whole split, pictures and all.

        Raises:
          UserError: a file is damaged.
        """
        return list(self._items)

    def read(self, name: str, *, origin: str = "") -> bytes:
        """The bytes of a picture, exactly as they were in the file `name`. `origin` names the record in messages.

        Raises:
          UserError: the split has no such picture, or a file is damaged.
        """
        if name not in self._positions:
            whose = f" (picture of {origin})" if origin else ""
            raise errors.UserError(f"{self.location}: split {self.split!r} has no picture {name!r}{whose}; {AGAIN}")
        return self._example(self._positions[name])["image"]

    def open(self, name: str, *, origin: str = "") -> io.BytesIO | io.BufferedReader:
        """As `read`, but a file at its beginning."""
        return io.BytesIO(self.read(name, origin=origin))

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that the split does not hold, each once, in the order given."""
        return [name for name in dict.fromkeys(names) if name not in self._positions]

    def near(self, name: str) -> str:
        """As `pictures.Store.near`."""
        found = pictures.similar(name, self._positions)
        return f"; there is {errors.short(found)}" if found else ""

    def stamps(self, names: Sequence[str]) -> dict[str, str]:
        """For every name that is there a text that changes with the set."""
        return {name: f"{self._stamp} {self._positions[name]}" for name in names if name in self._positions}

    def __getstate__(self) -> dict[str, Any]:
        positions = self._positions  # looked up once, not by every process
        return {name: value for name, value in vars(self).items() if name not in ("_examples", "_items")} | {"_positions": positions}

    @functools.cached_property
    def _examples(self) -> Any:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(self.location)
        return builder.as_data_source(self.split, decoders={"image": tfds.decode.SkipDecoding()})

    @functools.cached_property
    def _items(self) -> tuple[vlguard.Item, ...]:
        return tuple(self._item(i) for i in range(len(self._examples)))

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        """The record of each picture; of records that share one, the first."""
        return {item.image: i for i, item in reversed(list(enumerate(self._items)))}

    def _example(self, position: int) -> dict[str, Any]:
        try:
            return self._examples[position]
        except (OSError, RuntimeError, ValueError, IndexError) as e:
            reason = str(e).strip().splitlines()
            raise errors.UserError(
                f"{self.location}: record {position} of split {self.split!r} is unreadable ({reason[0] if reason else type(e).__name__});"
                f" remove the folder and {AGAIN}"
            ) from e

    def _item(self, position: int) -> vlguard.Item:
        try:
            return self._parsed(self._example(position), position)
        except UnicodeDecodeError as e:
            raise errors.UserError(
                f"{self.location}: record {position} of split {self.split!r} holds text that is not UTF-8; remove the folder and {AGAIN}"
            ) from e

    def _parsed(self, example: dict[str, Any], position: int) -> vlguard.Item:
        id_, pairs, safe = example["id"].decode(), example["instr-resp"], bool(example["safe"])
        columns = zip(pairs["kind"], pairs["instruction"], pairs["response"], strict=True)
        return vlguard.Item(
            id=id_,
            image=example["image/filename"].decode(),
            safe=safe,
            pairs=tuple((kind.decode(), instruction.decode(), response.decode()) for kind, instruction, response in columns),
            category=None if safe else example["harmful_category"].decode(),
            subcategory=None if safe else example["harmful_subcategory"].decode(),
            origin=f"{self.location}: {self.split} record {position} (id {errors.short(id_)})",
        )


def open_prepared(folder: str | pathlib.Path, split: str) -> PreparedVLGuard:
    """Open `split` of a prepared set. `folder` is what TFDS wrote (…/vlguard/1.0.0), a folder above it, or what `prepare` wrote.

    Raises:
      UserError: no prepared set there, one of another version, another data set, no such split, or a file of it is missing.
    """
    place, info = _find(pathlib.Path(folder))
    if info["name"] != NAME or info["version"] != VERSION:
        raise errors.UserError(f"{place}: holds {info['name']} {info['version']}, not {NAME} {VERSION}; {AGAIN}")
    if info.get("fileFormat") != "array_record":
        raise errors.UserError(f"{place}: written as {info.get('fileFormat')}, not as array_record; {AGAIN}")
    shards = {s["name"]: len(s["shardLengths"]) for s in info["splits"]}
    if split not in shards:
        raise errors.UserError(f"{place}: has no split {split!r}{errors.nearest(split, shards)}")
    files = [place / f"{NAME}-{split}.array_record-{i:05d}-of-{shards[split]:05d}" for i in range(shards[split])]
    for file in files:
        if not file.is_file():
            raise errors.UserError(f"{file}: missing; remove {place} and {AGAIN}")
    metadata = _read(place / "metadata.json")
    if not isinstance(metadata, dict) or not {"stand_in", "sha256"} <= metadata.keys():
        raise errors.UserError(f"{place}: metadata.json does not say what the set was made from; remove {place} and {AGAIN}")
    stamp = " ".join(f"{file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
    return PreparedVLGuard(place, split, metadata, hashlib.sha256(stamp.encode()).hexdigest()[:16])


def _find(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """The version's folder at or below `folder`, and what TFDS noted about it."""
    roots = [folder, folder / NAME, folder / "tfds" / NAME]
    for place in (version for root in roots for version in (root, root / VERSION)):
        if (place / INFO_FILE).is_file():
            return place, _read(place / INFO_FILE)
    others = sorted(file.parent.name for root in roots for file in root.glob(f"*/{INFO_FILE}"))
    found = f"holds {NAME} {', '.join(others)}, not {VERSION}" if others else f"not a prepared set: no {INFO_FILE} in it"
    raise errors.UserError(f"{folder}: {found}; `python -m vlguard_jax.prepare vlguard` writes one")


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return files.read_object(path)
    except errors.UserError as e:
        raise errors.UserError(f"{e}; {AGAIN}") from e
