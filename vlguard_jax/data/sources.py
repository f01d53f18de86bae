"""Sources of conversations: a file of records, the pictures that belong to them, and a hash of the content."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import hashlib
import pathlib
import shutil

import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax import types
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import file_index
from vlguard_jax.data import json_records
from vlguard_jax.data import pictures
from vlguard_jax.data import records
from vlguard_jax.data import vlguard
from vlguard_jax.data.tfds import reader


@dataclasses.dataclass(frozen=True)
class ListRecords:
    """Records in memory, for small files and those whose content depends on their order; a malformed one is its
    error."""

    records: Sequence[types.Record | errors.UserError]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> types.Record:
        found = self.records[i]
        if isinstance(found, errors.UserError):
            raise found
        return found

    def each(self) -> Iterator[Callable[[], types.Record]]:
        """All records in order, as `json_records.JsonRecords.each`."""
        return (functools.partial(self.__getitem__, i) for i in range(len(self.records)))

    def part(self, start: int, stop: int) -> ListRecords:
        """Records `start` .. `stop` - 1."""
        return ListRecords(self.records[start:stop])


@dataclasses.dataclass(frozen=True)
class Source:
    """One named source. content: hash of its records. store: its pictures, None if no folder is named for them."""

    name: str
    records: file_index.Records
    content: str
    store: pictures.Store | reader.PreparedVLGuard | None
    stand_in: bool


def open_source(name: str, settings: config.SourceSettings, cache: pathlib.Path) -> Source:
    """Open one entry of `config.data.sources`, reading no more records than needed.

    Raises:
      UserError: no path, or the file or the pictures' folder is missing or broken.
    """
    where = f"config.data.sources.{name}"
    if not settings.path:
        raise errors.UserError(
            f"{where}.path is empty: name the {'folder' if settings.format == 'tfds' else 'JSON file'}"
        )
    return _OPEN[settings.format](name, settings, cache)


def local_copy(path: str, cache: pathlib.Path) -> pathlib.Path:
    """`path` itself, or for an address like gs://bucket/file.json a copy in `cache`, renewed when the original changes.

    Raises:
      UserError: it cannot be read.
    """
    if "://" not in path:
        return pathlib.Path(path)
    import fsspec  # late: most runs read local files

    try:
        system, inside = fsspec.core.url_to_fs(path)
        version = str(system.ukey(inside))
        key = hashlib.sha256(f"{path}\n{version}".encode()).hexdigest()
        copy = cache / "remote" / key / (pathlib.PurePosixPath(inside).name or "file")
        known = cache_lib.load(cache, "copied", key)
        if (
            not known
            or copy.is_symlink()
            or not copy.is_file()
            or file_index.content_hash(copy, cache).encode() != known
        ):
            cache_lib.make_folder(cache, "remote", key)
            with folders.scratch(copy.parent, "copy") as beside:
                with system.open(inside, "rb") as remote, open(beside / "file", "xb") as file:
                    shutil.copyfileobj(remote, file, 1 << 22)
                (beside / "file").replace(copy)
            cache_lib.save(cache, "copied", key, file_index.content_hash(copy, cache).encode())
    except (OSError, ImportError, ValueError) as e:
        raise errors.UserError(f"{path}: cannot be read: {e}") from e
    return copy


def _open_json(parse: json_records.Parse) -> Callable[[str, config.SourceSettings, pathlib.Path], Source]:
    def open_(name: str, settings: config.SourceSettings, cache: pathlib.Path) -> Source:
        path = local_copy(settings.path, cache)
        if not path.is_file():
            what = "a folder, not a file" if path.is_dir() else "no such file"
            raise errors.UserError(f"{path}: {what} (config.data.sources.{name}.path)")
        content = file_index.content_hash(path, cache)
        found = json_records.JsonRecords(str(path), parse, _spans(path, content, cache))
        return _with_pictures(name, settings, found, f"{settings.format} {content}")

    return open_


def _open_vlguard(name: str, settings: config.SourceSettings, cache: pathlib.Path) -> Source:
    path = local_copy(settings.path, cache)
    converted = vlguard.convert(vlguard.read_each(path, "train"), name)
    file = path / "train.json" if path.is_dir() else path
    return _with_pictures(name, settings, ListRecords(converted), f"vlguard {file_index.content_hash(file, cache)}")


def _open_prepared(name: str, settings: config.SourceSettings, cache: pathlib.Path) -> Source:
    prepared = reader.open_prepared(settings.path, "train")
    converted = ListRecords(vlguard.convert(prepared.items(), name))
    return Source(name, converted, f"tfds {prepared.sha256}", prepared, settings.stand_in or prepared.stand_in)


def _with_pictures(name: str, settings: config.SourceSettings, found: file_index.Records, content: str) -> Source:
    store = pictures.open_store(settings.images) if settings.images else None
    drawn = settings.stand_in or bool(settings.images and vlguard.is_stand_in(settings.images))
    return Source(name, found, content, store, drawn)


def _spans(path: pathlib.Path, content: str, cache: pathlib.Path) -> json_records.Spans:
    """The byte spans of a file's records, cached under its content."""
    known = cache_lib.load_arrays(cache, "spans", content) or {}
    spans = known.get("spans", np.empty(0))
    if spans.ndim == 2 and spans.shape[0] == 2 and spans.dtype == np.int64:
        offset, size = spans
        if len(offset) and offset[0] >= 0 and (size > 0).all() and (offset[1:] >= (offset + size)[:-1]).all():
            return json_records.Spans(offset, size)
    found = json_records.scan(path)
    cache_lib.save_arrays(cache, "spans", content, {"spans": np.stack([found.offset, found.size])})
    return found


_OPEN: dict[str, Callable[[str, config.SourceSettings, pathlib.Path], Source]] = {
    "llava": _open_json(records.parse_llava),
    "alpaca": _open_json(records.parse_alpaca),
    "vlguard": _open_vlguard,
    "tfds": _open_prepared,
}
