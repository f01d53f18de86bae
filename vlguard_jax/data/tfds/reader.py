"""Reads VLGuard from the ArrayRecord files of its TFDS builder: the records, and each picture's own bytes by name.

The folder's own description (features.json, the paths of its files) is not read: TFDS imports every class named there,
which is code of whoever made the folder. The features are the builder's, the files are beside dataset_info.json, and
records are checked like those of VLGuard's JSON files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import io
import pathlib
from typing import Annotated, Any, TypedDict

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import typed
from vlguard_jax.data import pictures
from vlguard_jax.data import vlguard
from vlguard_jax.data.tfds import chunks

NAME, VERSION = "vlguard", "1.0.0"
INFO_FILE, MADE_FILE = "dataset_info.json", "metadata.json"
AGAIN = "run `python -m vlguard_jax.prepare vlguard` again"


def _count(value: str) -> str:
    """A check for typed.py; protocol buffers write integers as texts."""
    fits = value.isdecimal() and value.isascii() and len(value) < 10 and int(value) <= limits.RECORDS
    return "" if fits else f"a number of records up to {limits.RECORDS:,}"


class _Split(TypedDict):
    """A split in dataset_info.json."""

    name: typed.Name
    shardLengths: list[Annotated[str, _count]]


class _Info(TypedDict):
    """The fields read from dataset_info.json."""

    name: typed.Name
    version: typed.Name
    splits: list[_Split]


class _Made(TypedDict):
    """The origin of a set, from metadata.json."""

    stand_in: bool
    sha256: Mapping[str, typed.Name]


class PreparedVLGuard:
    """One split of a prepared set: its records in file order, and a picture store.

    May be shared between threads and sent to other processes, each of which opens the files itself. TFDS is imported at
    the first access to a record.
    """

    def __init__(self, folder: pathlib.Path, split: str, parts: Sequence[pathlib.Path], count: int, made: _Made):
        """parts: the files of the split, in order, with `count` records."""
        self.location, self.split = str(folder), split
        self.stand_in = made["stand_in"]
        self.sha256 = made["sha256"][split]  # of the JSON file that the split was made from
        self._parts, self._count = [str(part) for part in parts], count
        stamp = " ".join(f"{part.stat().st_size} {part.stat().st_mtime_ns}" for part in parts)
        self._stamp = hashlib.sha256(stamp.encode()).hexdigest()[:16]

    def items(self) -> list[vlguard.Item]:
        """The records, equal to those of the JSON file except for `origin`.

        The first call reads the whole split with its pictures.

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
        """As `read`, but returns a file, at its start."""
        return io.BytesIO(self.read(name, origin=origin))

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that are not in the split, each once, in the order given."""
        return [name for name in dict.fromkeys(names) if name not in self._positions]

    def near(self, name: str) -> str:
        """As `pictures.Store.near`."""
        found = pictures.similar(name, self._positions)
        return f"; there is {errors.short(found)}" if found else ""

    def stamps(self, names: Sequence[str]) -> dict[str, str]:
        """For every existing name, a text that changes with the set."""
        return {name: f"{self._stamp} {self._positions[name]}" for name in names if name in self._positions}

    def __getstate__(self) -> dict[str, Any]:
        positions = self._positions  # looked up once, not by every process
        return {name: value for name, value in vars(self).items() if name not in ("_examples", "_items")} | {
            "_positions": positions
        }

    @functools.cached_property
    def _examples(self) -> Any:
        from array_record.python import array_record_data_source

        try:
            for part in self._parts:
                chunks.check(part)
            found = array_record_data_source.ArrayRecordDataSource(self._parts)
            if len(found) != self._count:
                raise ValueError(f"{len(found)} records in its files, {self._count} in {INFO_FILE}")
        except (OSError, RuntimeError, ValueError) as e:
            raise self._unreadable(0, e) from e
        return found

    @functools.cached_property
    def _items(self) -> tuple[vlguard.Item, ...]:
        return tuple(self._item(i) for i in range(len(self._examples)))

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        """The record of each picture; of records that share one, the first."""
        return {item.image: i for i, item in reversed(list(enumerate(self._items)))}

    def _example(self, position: int) -> dict[str, Any]:
        serialized = self._examples
        try:
            return _parser()(serialized[position])
        except Exception as e:  # a damaged record can raise anything
            raise self._unreadable(position, e) from e

    def _unreadable(self, position: int, error: Exception) -> errors.UserError:
        reason = [*str(error).strip().splitlines(), type(error).__name__][0]
        return errors.UserError(
            f"{self.location}: record {position} of split {self.split!r} is unreadable ({reason}); remove the"
            f" folder and {AGAIN}"
        )

    def _item(self, position: int) -> vlguard.Item:
        example = self._example(position)
        try:
            value = _as_json(example)
        except UnicodeDecodeError as e:
            raise errors.UserError(
                f"{self.location}: record {position} of split {self.split!r} holds text that is not UTF-8; remove"
                f" the folder and {AGAIN}"
            ) from e
        except Exception as e:  # as above
            raise self._unreadable(position, e) from e
        item = vlguard.parse(value, position, self.location)
        return dataclasses.replace(
            item, origin=f"{self.location}: {self.split} record {position} (id {errors.short(item.id)})"
        )


@functools.cache
def _parser() -> Callable[[bytes], dict[str, Any]]:
    """The parser of a record's bytes; pictures are not decoded."""
    from tensorflow_datasets import decode

    from vlguard_jax.data.tfds import features

    return functools.partial(features.features().deserialize_example_np, decoders={"image": decode.SkipDecoding()})


def _as_json(example: dict[str, Any]) -> dict[str, Any]:
    """A record as in VLGuard's JSON file."""
    pairs = example["instr-resp"]
    columns = zip(pairs["kind"], pairs["instruction"], pairs["response"], strict=True)
    names = ("id", "harmful_category", "harmful_subcategory")
    return {
        **{name: example[name].decode() for name in names},
        "image": example["image/filename"].decode(),
        "safe": bool(example["safe"]),
        "instr-resp": [{kind.decode(): asked.decode(), "response": answer.decode()} for kind, asked, answer in columns],
    }


def open_prepared(folder: str | pathlib.Path, split: str) -> PreparedVLGuard:
    """Open `split` of a prepared set.

    `folder`: the one that TFDS wrote (…/vlguard/1.0.0), a folder above it, or the one that `prepare` wrote.

    Raises:
      UserError: no prepared set there, one of another version, another data set, no such split, or a file of the split
        is missing.
    """
    place, info = _find(pathlib.Path(folder))
    typed.check(_Info, info, str(place / INFO_FILE), AGAIN)
    if info["name"] != NAME or info["version"] != VERSION:
        raise errors.UserError(f"{place}: holds {info['name']} {info['version']}, not {NAME} {VERSION}; {AGAIN}")
    if info.get("fileFormat") != "array_record":
        raise errors.UserError(f"{place}: written as {info.get('fileFormat')}, not as array_record; {AGAIN}")
    lengths = {s["name"]: [int(n) for n in s["shardLengths"]] for s in info["splits"]}
    if split not in lengths:
        raise errors.UserError(f"{place}: has no split {split!r}{errors.nearest(split, lengths)}")
    shards = len(lengths[split])
    parts = [place / f"{NAME}-{split}.array_record-{i:05d}-of-{shards:05d}" for i in range(shards)]
    for part in parts:
        if not part.is_file():
            raise errors.UserError(f"{part}: missing; remove {place} and {AGAIN}")
    made = _read(place / MADE_FILE)
    if not {"stand_in", "sha256"} <= made.keys():
        raise errors.UserError(
            f"{place}: {MADE_FILE} does not say what the set was made from; remove {place} and {AGAIN}"
        )
    typed.check(_Made, made, str(place / MADE_FILE), AGAIN)
    if split not in made["sha256"]:
        raise errors.UserError(
            f"{place}: {MADE_FILE} does not say what {split!r} was made from; remove {place} and {AGAIN}"
        )
    return PreparedVLGuard(place, split, parts, sum(lengths[split]), made)


def _find(folder: pathlib.Path) -> tuple[pathlib.Path, Any]:
    """(the version's folder at or below `folder`, its dataset_info.json)."""
    roots = [folder, folder / NAME, folder / "tfds" / NAME]
    for place in (version for root in roots for version in (root, root / VERSION)):
        if (place / INFO_FILE).is_file():
            return place, _read(place / INFO_FILE)
    others = sorted(file.parent.name for root in roots for file in root.glob(f"*/{INFO_FILE}"))
    found = (
        f"holds {NAME} {', '.join(others)}, not {VERSION}" if others else f"not a prepared set: no {INFO_FILE} in it"
    )
    raise errors.UserError(f"{folder}: {found}; `python -m vlguard_jax.prepare vlguard` writes one")


def _read(path: pathlib.Path) -> Any:
    try:
        return files.read_object(path)
    except errors.UserError as e:
        raise errors.UserError(f"{e}; {AGAIN}") from e
