"""Counts of a file of conversations before any picture is read: made once, in parallel, and cached.

The counts depend on the file's content and on tokenization, so they are stored under a hash of both and serve any run,
whatever it selects from the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
import dataclasses
import functools
import gc
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import re
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Int64
import numpy as np

from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import tokenization as tokenization_lib
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import templates

VERSION = 7  # of the counts and of the stored file; if either changes, old files are not read
PART = 2000  # records that a process counts at a time
PARALLEL_FROM = 4 * PART  # fewer records are counted in this process
MOST_PROCESSES = 16

Progress = Callable[[int, int], None]


@runtime_checkable
class Records(Protocol):
    """Conversations by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> types.Record: ...
    def each(self) -> Iterator[Callable[[], types.Record]]:
        """All of them in order; each call reads one, and raises UserError if it is malformed."""
        ...

    def part(self, start: int, stop: int, /) -> Records:
        """Records `start` .. `stop` - 1, to be sent to another process."""
        ...


class Problem(NamedTuple):
    """What is wrong with a record.

    kind: "record" (malformed); "tag" (pictures without a tag in the text, or a tag without any picture, which the
    reference trains on unchanged); "pictures" (their number and that of the tags differ); "tokens" (the reference masks
    all its labels). The `reason` of a malformed record names the file; other reasons follow `origin`.
    """

    kind: str
    origin: str
    reason: str


@dataclasses.dataclass(frozen=True)
class FileIndex:
    """One entry per record of a file. length .. modality_length as in `index.SampleIndex`, 0 for a malformed record;
    where pictures may not be truncated, `length` and `supervised` of records with pictures are of the whole text only.

    ids: unique; a repeated id `x` becomes `x~1`, `x~2`, ...; "" for a malformed record. images: the pictures that the
    record names. categories: its category and subcategory, empty where it gives none. noted: of the records of which
    there is something to tell.
    """

    length: Int64[np.ndarray, " n"]
    pictures: Int64[np.ndarray, " n"]
    supervised: Int64[np.ndarray, " n"]
    modality_length: Int64[np.ndarray, " n"]
    ids: tuple[str, ...]
    images: tuple[tuple[str, ...], ...]
    categories: tuple[tuple[str, str], ...]
    problems: Mapping[int, Problem]
    noted: Mapping[int, types.Noted] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def repeated(self) -> frozenset[str]:
        """Ids that the file gives to several records."""
        first = [id_.removesuffix("~1") for id_ in self.ids if id_.endswith("~1")]
        second = {id_.removesuffix("~2") for id_ in self.ids if id_.endswith("~2")} if first else set()
        return frozenset(second.intersection(first))

    def noted_of(self, chosen: Int64[np.ndarray, " m"]) -> types.Noted:
        """The sum over records, each as often as it is chosen."""
        found = [self.noted[i] for i in chosen.tolist() if i in self.noted]
        return types.Noted(*map(sum, zip(*found, strict=True))) if found else types.Noted()


_COUNTS = ("length", "pictures", "supervised", "modality_length")


def build(records: Records, tokenization: tokenization_lib.Tokenization, progress: Progress | None = None) -> FileIndex:
    """Count every record; large files in several processes. `progress(done, total)` is called from time to time."""
    counted: list[dict[str, Any]] = []
    total = len(records)
    starts = range(0, total, PART)
    parts = [records.part(start, min(start + PART, total)) for start in starts]
    for start, part in zip(starts, _in_order(parts, tokenization, parallel=total >= PARALLEL_FROM), strict=True):
        problems = {start + i: problem for i, problem in part["problems"].items()}
        noted = {start + i: noted for i, noted in part["noted"].items()}
        counted.append(part | {"problems": problems, "noted": noted})
        if progress is not None:
            progress(min(start + PART, total), total)
    return FileIndex(
        **{name: np.concatenate([part["counts"][:, i] for part in counted]) for i, name in enumerate(_COUNTS)},
        ids=unique([id_ for part in counted for id_ in part["ids"]]),
        images=tuple(names for part in counted for names in part["images"]),
        categories=tuple(pair for part in counted for pair in part["categories"]),
        problems={i: problem for part in counted for i, problem in part["problems"].items()},
        noted={i: noted for part in counted for i, noted in part["noted"].items()},
    )


def build_or_load(
    records: Records,
    content: str,
    tokenization: tokenization_lib.Tokenization,
    cache: pathlib.Path,
    progress: Progress | None = None,
) -> FileIndex:
    """The index of a file whose content has the hash `content`, from `cache` if it is there."""
    key = hashlib.sha256(json.dumps([VERSION, content, tokenization.fingerprint]).encode()).hexdigest()
    if (stored := _load(cache, key, len(records))) is not None:
        return stored
    built = build(records, tokenization, progress)
    _save(built, cache, key)
    return built


def modality_length(record: types.Record) -> int:
    """Whitespace-separated words of all turns, negative for a record without a picture
    (llava/train/train.py:675-690)."""
    words = sum(len(turn.text.split()) for turn in record.turns)
    return words if record.images else -words


def unique(ids: list[str]) -> tuple[str, ...]:
    """Unique ids: `x`, `x` becomes `x~1`, `x~2`. The empty id of malformed records stays."""
    repeated = {id_ for id_, count in Counter(ids).items() if count > 1} - {""}
    seen: Counter[str] = Counter()
    names = []
    for id_ in ids:
        seen[id_] += 1
        names.append(f"{id_}~{seen[id_]}" if id_ in repeated else id_)
    return tuple(names)


def content_hash(path: pathlib.Path, cache: pathlib.Path) -> str:
    """sha256 of a file, cached while its size and modification time stay the same."""
    status = path.stat()
    stamp = [str(path.resolve()), status.st_size, status.st_mtime_ns]
    key = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()
    if (known := cache_lib.load(cache, "content", key)) is not None and re.fullmatch(b"[0-9a-f]{64}", known):
        return known.decode()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    cache_lib.save(cache, "content", key, digest.encode())
    return digest


def _in_order(
    parts: list[Records], tokenization: tokenization_lib.Tokenization, *, parallel: bool
) -> Iterator[dict[str, Any]]:
    count = functools.partial(_count, tokenization=tokenization)
    if not parallel:
        yield from map(count, parts)
        return
    processes = min(MOST_PROCESSES, os.cpu_count() or 1)
    # Not forked: the parent may have jax's threads. Nothing made here needs the garbage collector.
    with futures.ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=gc.disable
    ) as pool:
        yield from pool.map(count, parts)


def _count(records: Records, tokenization: tokenization_lib.Tokenization) -> dict[str, Any]:
    counts = np.zeros((len(records), len(_COUNTS)), np.int64)
    part: dict[str, Any] = {"counts": counts, "ids": [], "images": [], "categories": [], "problems": {}, "noted": {}}
    cuts = tokenization.cuts
    one = tokenization.extents([tokenization_lib.ANY])[0].slots if cuts else 0
    for i, read in enumerate(records.each()):
        id_, category = "", ("", "")
        images: tuple[str, ...] = ()
        try:
            record = read()
            id_, images, category = record.id, record.images, (record.category or "", record.subcategory or "")
            tokens = tokenization.tokens(record)
        except errors.UserError as e:
            part["problems"][i] = Problem("record", "", str(e))
        else:
            if any(tokens.noted):
                part["noted"][i] = tokens.noted
            tags = conversations.count_tags(record)
            if not images or tags <= len(images):
                whole = not cuts and bool(images)
                sample = tokenization.expand(tokens, [one] * len(images), whole=whole)
                shown = int((tokens.ids == types.IMAGE_TOKEN).sum()) if whole else sample.num_pictures
                counts[i] = len(sample.tokens), shown, sample.num_supervised, modality_length(record)
            if tags != len(images):
                kind = "pictures" if tags and images else "tag"
                part["problems"][i] = Problem(
                    kind, record.origin, f"{tags} turns with a picture tag, {len(images)} pictures"
                )
            elif tokens.mismatch is not None:
                assert isinstance(tokenization.template, templates.Template)  # others mask no conversation
                cause = conversations.mismatch_cause(record, tokenization.tokenizer, tokenization.template)
                part["problems"][i] = Problem("tokens", record.origin, f"{tokens.mismatch}: {cause}")
        part["ids"].append(id_)
        part["images"].append(images)
        part["categories"].append(category)
    return part


def _save(index: FileIndex, cache: pathlib.Path, key: str) -> None:
    flat = {
        "ids": index.ids,
        "images": [name for names in index.images for name in names],
        "categories": {i: pair for i, pair in enumerate(index.categories) if any(pair)},
        "problems": list(index.problems.items()),
        "noted": list(index.noted.items()),
    }
    arrays = {name: getattr(index, name) for name in _COUNTS} | {
        "named": np.asarray([len(names) for names in index.images], np.int64)
    }
    cache_lib.save_arrays(cache, "index", key, arrays | {"text": np.frombuffer(json.dumps(flat).encode(), np.uint8)})


def _load(cache: pathlib.Path, key: str, count: int) -> FileIndex | None:
    """The index of `count` records under this key; None if it is missing or damaged."""
    arrays = cache_lib.load_arrays(cache, "index", key)
    if arrays is None:
        return None
    try:
        flat = json.loads(arrays["text"].tobytes())
        counts = {name: arrays[name] for name in _COUNTS}
        named = arrays["named"].tolist()
        names = iter(flat["images"])
        categories = [("", "")] * count
        for i, (category, subcategory) in flat["categories"].items():
            categories[int(i)] = category, subcategory
        ids, problems = tuple(flat["ids"]), {i: Problem(*problem) for i, problem in flat["problems"]}
        noted = {int(i): types.Noted(*map(int, counts)) for i, counts in flat["noted"]}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None
    whole = all(array.dtype == np.int64 and array.shape == (count,) for array in (*counts.values(), arrays["named"]))
    if not whole or len(ids) != count or min(named, default=0) < 0 or sum(named) != len(flat["images"]):
        return None
    images = tuple(tuple(itertools.islice(names, number)) for number in named)
    return FileIndex(**counts, ids=ids, images=images, categories=tuple(categories), problems=problems, noted=noted)
