"""Reads VLGuard back from the ArrayRecord files that its TFDS builder wrote: the records, and each picture's own bytes by name."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import json
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax.data import vlguard

NAME, VERSION = "vlguard", "1.0.0"
INFO_FILE = "dataset_info.json"
AGAIN = "run `python -m vlguard_jax.prepare vlguard` again"


class PreparedVLGuard:
    """One split of a prepared set: its records in file order, and a picture store.

    May be shared by threads and sent to other processes, each of which opens the files for itself. TFDS is imported at the first
    access to a record.
    """

    def __init__(self, folder: pathlib.Path, split: str, metadata: dict[str, Any]):
        self.folder, self.split = folder, split
        self.stand_in: bool = metadata["stand_in"]
        self.sha256: str = metadata["sha256"][split]  # of the JSON file that the split was made from

    def items(self) -> list[vlguard.Item]:
        """The records, equal to those of the JSON file but for `origin`. The first call reads the whole split, pictures and all.

        Raises:
          UserError: a file is damaged.
        """
        return list(self._contents[0])

    def read(self, name: str) -> bytes:
        """The bytes of a picture, exactly as they were in the file `name`.

        Raises:
          UserError: the split has no such picture, or a file is damaged.
        """
        if name not in self._contents[1]:
            raise errors.UserError(f"{self.folder}: split {self.split!r} has no picture {name!r}; {AGAIN}")
        return self._example(self._contents[1][name])["image"]

    def missing(self, names: Sequence[str]) -> list[str]:
        """Which of `names` the split does not hold, sorted, each once."""
        return sorted(set(names) - self._contents[1].keys())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_examples"}

    @functools.cached_property
    def _examples(self) -> Any:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(self.folder)
        return builder.as_data_source(self.split, decoders={"image": tfds.decode.SkipDecoding()})

    @functools.cached_property
    def _contents(self) -> tuple[tuple[vlguard.Item, ...], dict[str, int]]:
        """The records, and the position of each picture; of records that share one, the first holds it."""
        items = tuple(self._item(i) for i in range(len(self._examples)))
        return items, {item.image: i for i, item in reversed(list(enumerate(items)))}

    def _example(self, position: int) -> dict[str, Any]:
        try:
            return self._examples[position]
        except (OSError, RuntimeError, ValueError, IndexError) as e:
            reason = str(e).strip().splitlines()
            raise errors.UserError(
                f"{self.folder}: record {position} of split {self.split!r} is unreadable ({reason[0] if reason else type(e).__name__});"
                f" remove the folder and {AGAIN}"
            ) from e

    def _item(self, position: int) -> vlguard.Item:
        example = self._example(position)
        id_, pairs, safe = example["id"].decode(), example["instr-resp"], bool(example["safe"])
        columns = zip(pairs["kind"], pairs["instruction"], pairs["response"], strict=True)
        return vlguard.Item(
            id=id_,
            image=example["image/filename"].decode(),
            safe=safe,
            pairs=tuple((kind.decode(), instruction.decode(), response.decode()) for kind, instruction, response in columns),
            category=None if safe else example["harmful_category"].decode(),
            subcategory=None if safe else example["harmful_subcategory"].decode(),
            origin=f"{self.folder}: {self.split} record {position} (id {id_!r})",
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
    for i in range(shards[split]):
        shard = place / f"{NAME}-{split}.array_record-{i:05d}-of-{shards[split]:05d}"
        if not shard.is_file():
            raise errors.UserError(f"{shard}: missing; remove {place} and {AGAIN}")
    metadata = _read(place / "metadata.json")
    if not isinstance(metadata, dict) or not {"stand_in", "sha256"} <= metadata.keys():
        raise errors.UserError(f"{place}: metadata.json does not say what the set was made from; remove {place} and {AGAIN}")
    return PreparedVLGuard(place, split, metadata)


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
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise errors.UserError(f"{path}: missing or broken; {AGAIN}") from e
