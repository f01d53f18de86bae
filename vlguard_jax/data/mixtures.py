"""Named sources of conversations, combined as the config says.

Every record that is left out is counted and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

from jaxtyping import Int64
import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import extents
from vlguard_jax.data import file_index
from vlguard_jax.data import images
from vlguard_jax.data import index
from vlguard_jax.data import picture_check
from vlguard_jax.data import selection
from vlguard_jax.data import sources
from vlguard_jax.data import tokenization as tokenization_lib
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

_NOTED = (  # as the fields of types.Noted
    "tokens across the border of an answer, which are not learned: {}",
    "conversations with special tokens written out in a question or system text, where they become those tokens: {}",
    "conversations with special tokens written out in an answer, where they are learned as those tokens: {}",
)
RECENT = 8192  # samples kept in memory, so that small data sets are tokenized once


@dataclasses.dataclass(frozen=True)
class Drop:
    """A record that was left out, and why. kind: as in `file_index.Problem`, or "picture" (one cannot be read)."""

    id: str
    source: str
    origin: str
    reason: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What a run trains on: entry i of the index is record `position[i]` of source `index.source[i]`.

    Holds no text and no pixels: both are read when a step needs them. sizes: of the pictures of each source, where
    their slots depend on it.
    """

    sources: tuple[sources.Source, ...]
    position: Int64[np.ndarray, " n"]
    index: index.SampleIndex
    tokenization: tokenization_lib.Tokenization
    image_mode: str
    sizes: tuple[Mapping[str, types.Size], ...]
    drops: tuple[Drop, ...]
    named_pictures: int  # in the records, with or without a tag in the text
    repeated_ids: int
    noted: types.Noted = types.Noted()
    _recent: dict[int, batches.Sample] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_recent": {}}  # another process starts with an empty one

    @property
    def stand_in(self) -> bool:
        """Whether any picture is a stand-in."""
        return any(source.stand_in for source in self.sources)

    def record(self, i: int) -> types.Record:
        """The record of sample `i`."""
        return self.source(i).records[int(self.position[i])]

    def source(self, i: int) -> sources.Source:
        """The source of sample `i`."""
        return self.sources[int(self.index.source[i])]

    def sample(self, i: int) -> batches.Sample:
        """Tokens and labels of sample `i`, without pixels."""
        if (known := self._recent.get(i)) is not None:
            return known
        record = self.record(i)
        sample = self.tokenization.sample(record, self._extents(i, record))
        if len(self._recent) < RECENT:
            self._recent[i] = sample
        return sample

    def pictured(self, i: int) -> batches.Sample:
        """Sample `i` with the pictures that take part in training.

        Raises:
          UserError: a picture is missing now, cannot be read, or has another size than when it was checked.
        """
        sample, count = self.sample(i), int(self.index.pictures[i])
        if not count:
            return sample
        record, store = self.record(i), self.source(i).store
        assert store is not None
        loaded = []
        for name, planned in zip(record.images[:count], self._extents(i, record), strict=False):
            model = self.tokenization.model
            found = images.load(store.read(name), model, self.image_mode, origin=record.origin, name=name)
            if found.extent != planned:
                raise errors.UserError(
                    f"{name} (picture of {record.origin}) has another size than when it was checked; start again"
                )
            loaded.append(found)
        return dataclasses.replace(sample, pictures=tuple(loaded))

    def extents(self, i: int) -> list[types.Extent]:
        """The extents of the pictures of sample `i`."""
        return self._extents(i, self.record(i))

    def _extents(self, i: int, record: types.Record) -> list[types.Extent]:
        sizes = self.sizes[int(self.index.source[i])]
        of = (
            [sizes[name] for name in record.images]
            if self.tokenization.sized
            else [tokenization_lib.ANY] * len(record.images)
        )
        return self.tokenization.extents(of)

    def notes(self) -> list[str]:
        """What is not trained on although its record is, one line each."""
        lines = []
        max_len = self.tokenization.max_len
        full = np.flatnonzero(self.index.length >= max_len)
        if len(full):
            lines.append(
                f"{len(full):,} conversations reach max_len={max_len} and end there, the first is"
                f" {errors.short(self.index.ids[full[0]])}"
            )
        if unused := self.named_pictures - int(self.index.pictures.sum()):
            lines.append(f"{unused:,} pictures are not used: cut off, or without a tag in the text")
        silent = np.flatnonzero(self.index.supervised == 0)
        if len(silent):
            lines.append(
                f"{len(silent):,} conversations have no supervised token and teach nothing, the first is"
                f" {errors.short(self.index.ids[silent[0]])}"
            )
        lines += [text.format(f"{n:,}") for n, text in zip(self.noted, _NOTED, strict=True) if n]
        if n := self.repeated_ids:
            whose = "1 id names several conversations" if n == 1 else f"{n:,} ids name several conversations each"
            lines.append(f"{whose}; they are told apart as ID~1, ID~2, ...")
        return lines


def build(
    data: config.DataSettings,
    tokenizer: tokenizer_lib.Tokenizer,
    template: conversations.Template,
    model: family.Config,
    image_mode: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    problems_file: pathlib.Path | None = None,
    part: selection.Part | None = None,
) -> Mixture:
    """Index everything that `data` names for a model, and select from it, or from a `part` of it.

    `progress(done, total)` starts anew for each source. Pictures are checked for use in `image_mode`; if any is missing
    or bad, `problems_file` lists all of them.

    Raises:
      UserError: a file is missing or broken, a selected record is malformed or has bad pictures and `on_bad_record` is
        "error", or the reference would mask its labels and `on_mismatch` is "error".
    """
    image_mode = table.image_mode(model, image_mode)
    max_len = data.max_len or table.of(model).max_len
    tokenization = tokenization_lib.Tokenization(tokenizer, template, model, max_len)
    opened = [_open(name, data, tokenization, image_mode, progress, problems_file, part) for name in data.sources]
    return Mixture(
        sources=tuple(one.source for one in opened),
        position=np.concatenate([np.zeros(0, np.int64), *(one.chosen for one in opened)]),
        index=_join(tuple(data.sources), opened),
        tokenization=tokenization,
        image_mode=image_mode,
        sizes=tuple(one.sizes for one in opened),
        drops=tuple(drop for one in opened for drop in one.drops),
        named_pictures=sum(len(one.found.images[i]) for one in opened for i in one.chosen.tolist()),
        repeated_ids=sum(len(one.found.repeated) for one in opened),
        noted=types.Noted(*np.sum([one.found.noted_of(one.chosen) for one in opened], axis=0, dtype=int).tolist()),
    )


class _Opened(NamedTuple):
    """A source, counted, with its selection. sizes: as in `Mixture`."""

    source: sources.Source
    found: file_index.FileIndex
    chosen: Int64[np.ndarray, " m"]
    counts: extents.Counts
    sizes: Mapping[str, types.Size]
    drops: list[Drop]


def _open(
    name: str,
    data: config.DataSettings,
    tokenization: tokenization_lib.Tokenization,
    image_mode: str,
    progress: Callable[[int, int], None] | None,
    problems_file: pathlib.Path | None,
    part: selection.Part | None,
) -> _Opened:
    settings, model, cache = data.sources[name], tokenization.model, cache_lib.folder(data.cache)
    source = sources.open_source(name, settings, cache)
    found = file_index.build_or_load(source.records, source.content, tokenization, cache, progress)
    picked = selection.select(found, settings, name, part)
    reasons = _problems(found, picked, data)
    names = _named_pictures(source, found, picked)
    if names and tokenization.sees is None:
        raise errors.UserError("the conversations have pictures, but the model has no vision tower")
    bad: Mapping[str, str] = {}
    sizes: Mapping[str, types.Size] = {}
    if source.store is not None and names:
        checked = picture_check.check(
            source.store, names, data.check_pictures, model, image_mode, progress, cache=cache
        )
        bad, sizes = checked.bad, checked.sizes
    if bad and data.on_bad_record == "error":
        raise errors.UserError(
            _picture_complaint(source, found, bad, len(names), problems_file, settings.format == "vlguard")
        )
    for i in set(picked.tolist()) - set(reasons) if bad else ():
        if name_of_bad := next((image for image in found.images[i] if image in bad), ""):
            reasons[i] = f"picture {name_of_bad}: {bad[name_of_bad]}"
    fit = picked[~np.isin(picked, list(reasons))]
    counts = extents.count(found, fit, source.records, tokenization, sizes)
    reasons |= _too_long(counts.too_long, source, data, tokenization.max_len)
    drops = [_drop(found, i, reason, source) for i, reason in sorted(reasons.items())]
    chosen = picked[~np.isin(picked, list(reasons))]
    return _Opened(source, found, chosen, counts, sizes if tokenization.sized else {}, drops)


def check_lengths(mixture: Mixture, context: int | None) -> None:
    """Raise UserError if a conversation has more tokens, pictures included, than the model has positions (None:
    unknown)."""
    beyond = np.flatnonzero(mixture.index.length > (context or np.inf))
    if len(beyond):
        first = int(beyond[0])
        raise errors.UserError(
            f"{mixture.record(first).origin}: {mixture.index.length[first]:,} tokens, and the model has {context:,}"
            f" positions (max_position_embeddings), as with {len(beyond):,} conversations in all; set"
            f" config.data.max_len={context} to cut them there (now {mixture.tokenization.max_len}), or take them out"
        )


def write_drops(drops: Sequence[Drop], path: str | pathlib.Path) -> None:
    """List the records that were left out, one JSON line each."""
    files.write_text(
        pathlib.Path(path), "".join(json.dumps({"schema": 1, **dataclasses.asdict(drop)}) + "\n" for drop in drops)
    )


def _join(names: tuple[str, ...], parts: Sequence[_Opened]) -> index.SampleIndex:
    def gather(field: Callable[[_Opened], Int64[np.ndarray, " _"]]) -> Int64[np.ndarray, " n"]:
        return np.concatenate([np.zeros(0, np.int64), *(field(part)[part.chosen] for part in parts)])

    sizes = [len(part.chosen) for part in parts]
    copies = [selection.copy_names(part.found, part.chosen) for part in parts]
    return index.SampleIndex(
        length=gather(lambda part: part.counts.length),
        pictures=gather(lambda part: part.found.pictures),
        units=gather(lambda part: part.counts.units),
        slots=gather(lambda part: part.counts.slots),
        supervised=gather(lambda part: part.counts.supervised),
        modality_length=gather(lambda part: part.found.modality_length),
        ids=tuple(id_ for of in copies for id_ in of),
        source=np.repeat(np.arange(len(names), dtype=np.int32), sizes),
        source_names=names,
    )


def _too_long(
    too_long: Mapping[int, int], source: sources.Source, data: config.DataSettings, max_len: int
) -> dict[int, str]:
    """Why conversations with pictures that end beyond `max_len` are left out.

    Raises:
      UserError: they may not be left out.
    """
    reasons = {i: f"its pictures end at token {end:,}, beyond max_len={max_len}" for i, end in too_long.items()}
    if reasons and data.on_bad_record == "error":
        first = min(reasons)
        raise errors.UserError(
            f"{source.records[first].origin}: {reasons[first]}, as with {len(reasons):,} conversations in all; raise"
            ' config.data.max_len, or leave such records out with config.data.on_bad_record="skip"'
        )
    return reasons


def _drop(found: file_index.FileIndex, i: int, reason: str, source: sources.Source) -> Drop:
    problem = found.problems.get(i)
    origin = problem.origin if problem and problem.origin else f"record {i}"
    return Drop(
        found.ids[i], source.name, origin, reason, problem.kind if problem and problem.reason == reason else "picture"
    )


def _problems(
    found: file_index.FileIndex, picked: Int64[np.ndarray, " m"], data: config.DataSettings
) -> dict[int, str]:
    """Why each of the `picked` records that cannot be trained on is left out.

    Raises:
      UserError: one of them may not be left out.
    """
    wanted = set(picked.tolist())
    reasons: dict[int, str] = {}
    for i, problem in found.problems.items():
        if i not in wanted:
            continue
        setting, allowed = ("on_bad_record", "skip") if problem.kind == "record" else ("on_mismatch", "ignore")
        if getattr(data, setting) == "reference" and problem.kind in ("tag", "tokens"):
            continue
        if getattr(data, setting) != allowed:
            raise errors.UserError(_complaint(problem, setting, allowed, data))
        reasons[i] = problem.reason
    return reasons


def _complaint(problem: file_index.Problem, setting: str, allowed: str, data: config.DataSettings) -> str:
    what = ": ".join(text for text in (problem.origin, problem.reason) if text)
    if getattr(data, setting) == "reference":
        # the reference would take the picture of the next sample in the batch
        return f"{what}; correct or remove the record"
    return f'{what}; correct or remove the record, or set config.data.{setting}="{allowed}" to leave such records out'


def _named_pictures(source: sources.Source, found: file_index.FileIndex, picked: Int64[np.ndarray, " m"]) -> list[str]:
    """The pictures of the `picked` records.

    Raises:
      UserError: there are some, but the config names no folder for them.
    """
    names = sorted({name for i in picked.tolist() for name in found.images[i]})
    if names and source.store is None:
        raise errors.UserError(
            f"config.data.sources.{source.name}.images is empty, but the source has pictures: name their folder"
        )
    return names


def _picture_complaint(
    source: sources.Source,
    found: file_index.FileIndex,
    bad: Mapping[str, str],
    total: int,
    problems_file: pathlib.Path | None,
    gated: bool,
) -> str:
    missing = [name for name, reason in bad.items() if reason == picture_check.MISSING]
    what = "missing" if len(missing) == len(bad) else "missing or not readable"
    first = min(bad)
    whose = next(id_ for id_, names in zip(found.ids, found.images, strict=True) if first in names)
    assert source.store is not None
    reason = source.store.near(first) if bad[first] == picture_check.MISSING else f": {bad[first]}"
    listed = ""
    if problems_file is not None:
        problems_file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(problems_file, "".join(f"{name}\t{reason}\n" for name, reason in sorted(bad.items())))
        listed = f" (all of them: {problems_file})"
    drawn = (
        " (or draw stand-ins with `python -m vlguard_jax.prepare vlguard --stand_in_images`)"
        if gated and missing
        else ""
    )
    return (
        f"{source.store.location}: {len(bad)} of {total} pictures of source {source.name!r} are {what}{listed}, the"
        f" first is {first} of record {errors.short(whose)}{reason}"
        f'; download them{drawn}, or leave their records out with config.data.on_bad_record="skip"'
    )
