"""Named sources of conversations, put together as the config says. Nothing is dropped without being counted and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import random

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.data import conversations
from vlguard_jax.data import index
from vlguard_jax.data import records
from vlguard_jax.data import templates
from vlguard_jax.data import tokenizer as tokenizer_lib
from vlguard_jax.data import vlguard


@dataclasses.dataclass(frozen=True)
class Drop:
    """A record that was left out, and why."""

    id: str
    source: str
    origin: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What a run trains on: `records[i]`, `samples[i]` (no pictures loaded) and the index's entry i belong together."""

    records: tuple[types.Record, ...]
    samples: tuple[batches.Sample, ...]
    index: index.SampleIndex
    image_folders: Mapping[str, str]  # by source
    drops: tuple[Drop, ...]
    stand_in: bool
    max_len: int

    def notes(self) -> list[str]:
        """What does not take part in training although its record does, one line each."""
        lines = []
        full = [id_ for id_, length in zip(self.index.ids, self.index.length, strict=True) if length >= self.max_len]
        if full:
            lines.append(f"{len(full):,} conversations reach max_len={self.max_len} and end there, the first is {full[0]!r}")
        unused = sum(len(record.images) for record in self.records) - int(self.index.pictures.sum())
        if unused:
            lines.append(f"{unused:,} pictures are not used: cut off, or without a tag in the text")
        silent = [id_ for id_, count in zip(self.index.ids, self.index.supervised, strict=True) if not count]
        if silent:
            lines.append(f"{len(silent):,} conversations have no supervised token and teach nothing, the first is {silent[0]!r}")
        return lines

    def image_paths(self, i: int) -> list[pathlib.Path]:
        """Where the pictures of record `i` are that take part in training."""
        record = self.records[i]
        used = record.images[: self.samples[i].num_pictures]
        return [pathlib.Path(self.image_folders[record.source]) / image for image in used]


def read_sources(sources: Mapping[str, config.SourceSettings]) -> list[types.Record]:
    """The conversations of all sources, in the order of the config and of their files.

    Raises:
      UserError: a file is missing or broken, an excluded id is not there, a sample is larger than its source, or pictures are missing.
    """
    found = []
    for name, source in sources.items():
        of_source = [dataclasses.replace(record, source=name) for record in _read(name, source)]
        if source.exclude_ids:
            of_source = _exclude(of_source, source.exclude_ids, name)
        if source.count:
            of_source = _sample(of_source, source, name)
        _check_pictures(of_source, source.images, name)
        found += of_source
    return found


def build(
    data: config.DataSettings,
    tokenizer: tokenizer_lib.Tokenizer,
    template: templates.Template,
    patches: int,
    progress: Callable[[int, int], None] | None = None,
) -> Mixture:
    """Read, tokenize, expand and index everything that `data` names. `patches` is P, the slots a picture takes.

    `progress(done, total)` is called after each record.

    Raises:
      UserError: as `read_sources`, or the reference would void a record and `on_mismatch` is "error".
    """
    kept, samples, drops = [], [], []
    found = read_sources(data.sources)
    for i, record in enumerate(found):
        if progress is not None:
            progress(i + 1, len(found))
        tokens = conversations.tokenize(record, tokenizer, template, data.max_len)
        problem = _mismatch(record, tokens, data.on_mismatch)
        if problem and data.on_mismatch == "error":
            raise errors.UserError(
                f"{record.origin}: {problem}; correct or remove the record, or set config.data.on_mismatch"
                '="ignore" to leave such records out'
            )
        if problem and data.on_mismatch == "ignore":
            drops.append(Drop(record.id, record.source, record.origin, problem))
            continue
        kept.append(record)
        samples.append(batches.expand(tokens, [patches] * len(record.images), data.max_len, tokenizer.pad_id))
    return Mixture(
        records=tuple(kept),
        samples=tuple(samples),
        index=index.build_index(kept, samples),
        image_folders={name: source.images for name, source in data.sources.items()},
        drops=tuple(drops),
        stand_in=any(source.stand_in or vlguard.is_stand_in(source.images) for source in data.sources.values() if source.images),
        max_len=data.max_len,
    )


def write_drops(drops: Sequence[Drop], path: str | pathlib.Path) -> None:
    """List what was left out, one JSON line each."""
    path = pathlib.Path(path)
    beside = path.with_name(path.name + ".partial")
    beside.write_text("".join(json.dumps({"schema": 1, **dataclasses.asdict(drop)}) + "\n" for drop in drops))
    beside.replace(path)


def _read(name: str, source: config.SourceSettings) -> list[types.Record]:
    where = f"config.data.sources.{name}"
    if not source.path:
        raise errors.UserError(f"{where}.path is empty: name the JSON file")
    if source.format == "vlguard":
        return vlguard.convert(vlguard.read_items(source.path, "train"), name)
    if source.format == "llava":
        return records.read_llava(source.path)
    raise errors.UserError(f"{where}.format={source.format!r} is unknown{errors.nearest(source.format, ('vlguard', 'llava'))}")


def _exclude(found: list[types.Record], path: str, name: str) -> list[types.Record]:
    if not os.path.isfile(path):
        raise errors.UserError(f"{path}: no such file (config.data.sources.{name}.exclude_ids)")
    wanted = {line.strip() for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()} - {""}
    absent = sorted(wanted - {record.id for record in found})
    if absent:
        raise errors.UserError(f"{path}: {len(absent)} of {len(wanted)} ids are not in source {name!r}, the first is {absent[0]!r}")
    return [record for record in found if record.id not in wanted]


def _sample(found: list[types.Record], source: config.SourceSettings, name: str) -> list[types.Record]:
    if source.count > len(found):
        raise errors.UserError(f"config.data.sources.{name}.count={source.count}, but the source has only {len(found)} conversations")
    chosen = random.Random(source.sample_seed).sample(range(len(found)), source.count)
    return [found[i] for i in sorted(chosen)]


def _check_pictures(found: Sequence[types.Record], folder: str, name: str) -> None:
    paths = {image for record in found for image in record.images}
    if paths and not folder:
        raise errors.UserError(f"config.data.sources.{name}.images is empty, but the source has pictures: name their folder")
    missing = sorted(path for path in paths if not os.path.isfile(os.path.join(folder, path)))
    if missing:
        shown = ", ".join(missing[:3])
        raise errors.UserError(
            f"{folder}: {len(missing)} of {len(paths)} pictures of source {name!r} are missing, first: {shown}; download them, or draw"
            " stand-ins with `python -m vlguard_jax.prepare vlguard --stand_in_images`"
        )


def _mismatch(record: types.Record, tokens: types.Tokens, policy: str) -> str | None:
    """Why the record cannot be trained on as it stands; None if it can."""
    tags = conversations.count_tags(record)
    if tags != len(record.images) and not (policy == "reference" and tags == 0):
        problem = f"{tags} turns with a picture tag, {len(record.images)} pictures"
        if policy == "reference":
            # The reference would take the picture of the next sample in the batch.
            raise errors.UserError(f"{record.origin}: {problem}; correct or remove the record")
        return problem
    return tokens.mismatch
