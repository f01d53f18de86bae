"""Prompts as the programs read them: expanded, checked, told apart by content, and laid out in rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
from typing import NamedTuple

from jaxtyping import Int32
import numpy as np

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import ranges
from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.generation import lengths
from vlguard_jax.generation import prefixes
from vlguard_jax.generation import slots

_RULES = {
    **{name: ranges.rules(settings_lib.DecodeSettings)[name] for name in ("temperature", "top_p")},
    "seed": ranges.rules(settings_lib.EvalConfig)["seed"],
}


class Shape(NamedTuple):
    """What the programs of a prompt's reading depend on; prompts of one shape are admitted together. prefix, rest:
    tokens, padded; prefix is 0 for a prompt without pictures."""

    prefix: int
    rest: int

    @property
    def length(self) -> int:
        """Places of the cache for the prompt, without those of its answer."""
        return lengths.room(self.prefix + self.rest)


@dataclasses.dataclass(frozen=True)
class Limits:
    """max_new: tokens of the answer, at most. min_new: stop ids are banned for so many. stop_ids: end the answer.

    temperature: 0 for the best token; else tokens are drawn, from those with a probability of `top_p` together. seed:
    of the draws, below 2**32. content: 32 bits of a hash of the prompt, where tokens are drawn; `asked` fills it in.
    """

    max_new: int
    min_new: int
    stop_ids: tuple[int, ...]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    content: int = 0


class Shown(NamedTuple):
    """A picture of a prompt. key: hash of its arrays, which preprocessing has made. room: for it alone."""

    key: bytes
    picture: types.Picture
    room: family.Room


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt on its way.

    tokens, positions, slot: i32[n], expanded; slot: of the features of its pictures, one after another, as each takes
    them (`Shown.room`), -1 for text. prefix: tokens through the last picture; one token always follows, so where the
    picture is the last of all, its last slot belongs to the rest. key: hash of the prefix.
    """

    prompt: types.Prompt
    tokens: Int32[np.ndarray, " n"]
    positions: Int32[np.ndarray, " n"]
    slot: Int32[np.ndarray, " n"]
    follows: int
    prefix: int
    key: bytes
    shown: tuple[Shown, ...]
    limits: Limits

    @property
    def shape(self) -> Shape:
        """See Shape."""
        return Shape(lengths.padded(self.prefix), lengths.padded(len(self.tokens) - self.prefix))

    @property
    def looks_back(self) -> bool:
        """Whether the rest, too, needs features."""
        return bool((self.slot[self.prefix :] >= 0).any())


def asked(config: family.Config, prompt: types.Prompt, limits: Limits) -> Asked:
    """A prompt, expanded.

    Raises:
      UserError: pictures for a model without a tower, more or fewer pictures than the prompt has tags for, no token, an
        id that is not the model's, or a temperature, top_p or seed that no setting may have.
    """
    for name, rule in _RULES.items():
        rule.checked(getattr(limits, name), f"{prompt.name}: {name}")
    sees = table.of(config).pictures
    if prompt.pictures and sees is None:
        raise errors.UserError(
            f"{prompt.name} has pictures, but the model has no vision tower; choose a LLaVA checkpoint"
        )
    check_ids(prompt.ids[prompt.ids != types.IMAGE_TOKEN], config.text.vocab_size, prompt.name)
    if (places := int((prompt.ids == types.IMAGE_TOKEN).sum())) != len(prompt.pictures):
        raise errors.UserError(f"{prompt.name}: {len(prompt.pictures)} pictures for {places} places in the text")
    if not len(prompt.ids):
        raise errors.UserError(f"{prompt.name} has no token; an answer follows at least one")
    tokens = types.Tokens(prompt.ids, np.full(len(prompt.ids), types.IGNORE_LABEL, np.int32))
    sample = batches.expand(tokens, [picture.extent.slots for picture in prompt.pictures], None, None)
    sample = dataclasses.replace(sample, pictures=prompt.pictures)
    positions, follows = batches.positions(config, sample)
    shown = tuple(_shown(picture, bool(sees and sees.sized)) for picture in prompt.pictures)
    if limits.temperature > 0:
        limits = dataclasses.replace(limits, content=_content(prompt, shown))
    first = np.cumsum([0, *(one.room.slots for one in shown)])
    slot = np.where(sample.picture >= 0, first[sample.picture] + sample.place, -1).astype(np.int32)
    prefix = min(int(np.flatnonzero(slot >= 0).max(initial=-1)) + 1, len(slot) - 1)
    if shown and not prefix:
        raise errors.UserError(f"{prompt.name} is one place of a picture and nothing else; add a token before it")
    key = hashlib.sha256(sample.tokens[:prefix].tobytes() + slot[:prefix].tobytes())
    for one in shown:
        key.update(one.key)
    bare = dataclasses.replace(prompt, pictures=())
    return Asked(bare, sample.tokens, positions, slot, follows, prefix, key.digest() if prefix else b"", shown, limits)


def _shown(picture: types.Picture, sized: bool) -> Shown:
    key = hashlib.sha256()
    for name, array in sorted(picture.arrays.items()):
        key.update(f"{name} {array.dtype} {array.shape};".encode())
        key.update(np.ascontiguousarray(array))
    # Slots that depend on the picture's size are rounded up, so that few programs are compiled.
    slots_ = lengths.padded(picture.extent.slots) if sized else picture.extent.slots
    return Shown(key.digest(), picture, family.Room(picture.extent.units, slots_))


def _content(prompt: types.Prompt, shown: Sequence[Shown]) -> int:
    """32 bits of a hash of its ids and pictures."""
    hashed = hashlib.sha256(np.ascontiguousarray(prompt.ids, "<i4").tobytes() + b"".join(one.key for one in shown))
    return int.from_bytes(hashed.digest()[:4], "little")


def check_ids(ids: np.ndarray, rows: int, what: str) -> None:
    """Refuse ids out of range: JAX would take the last row for an id beyond it, and count negative ones from the
    end.

    Raises:
      UserError: there is one.
    """
    if len(wrong := ids[(ids < 0) | (ids >= rows)]):
        raise errors.UserError(f"{what}: the token {wrong[0]} is not one of the model's, which has {rows:,} rows")


class Placed(NamedTuple):
    """A prompt with its places. entry: the row that keeps its prefix; slot: its decode slot; both counted in its row
    shard. features: i32[n], the row of the features of each token, counted over all shards, -1 for text; None where the
    rest needs none."""

    asked: Asked
    entry: int
    slot: int
    features: Int32[np.ndarray, " n"] | None


Rows = Sequence[Sequence[Placed]]  # dealt to row shards


def to_keep(dealt: Rows, each: int, beyond: int) -> prefixes.Prefixes:
    """Prefixes of one shape in `each` rows of every shard. beyond: the entry of empty rows."""
    rows = _filled(dealt, each)
    size = next(one.asked.shape.prefix for one in rows if one)

    def texts(of: Callable[[Placed], np.ndarray], fill: int) -> np.ndarray:
        return _texts([of(one)[: one.asked.prefix] if one else None for one in rows], size, fill)

    return prefixes.Prefixes(
        tokens=texts(lambda one: one.asked.tokens, 0),
        positions=texts(lambda one: one.asked.positions, 0),
        length=_numbers([one.asked.prefix if one else 0 for one in rows]),
        slot=texts(_features, -1),
        where=_numbers([one.entry if one else beyond for one in rows]),
    )


def to_read(dealt: Rows, each: int) -> prefixes.Rests:
    """The rests of prompts of one shape in `each` rows of every shard."""
    rows = _filled(dealt, each)
    size = next(one.asked.shape.rest for one in rows if one)

    def texts(of: Callable[[Placed], np.ndarray], fill: int) -> np.ndarray:
        return _texts([of(one)[one.asked.prefix :] if one else None for one in rows], size, fill)

    return prefixes.Rests(
        tokens=texts(lambda one: one.asked.tokens, 0),
        positions=texts(lambda one: one.asked.positions, 0),
        last=_numbers([len(one.asked.tokens) - one.asked.prefix - 1 if one else -1 for one in rows]),
        start=_numbers([one.asked.prefix if one else 0 for one in rows]),
        entry=_numbers([one.entry if one else 0 for one in rows]),
        slot=texts(_features, -1),
    )


def to_answer(dealt: Rows, each: int, beyond: int, vocab_size: int) -> slots.Prompts:
    """Prompts of one shape in `each` rows of every shard. beyond: the slot of empty rows."""
    rows = _filled(dealt, each)
    return slots.Prompts(
        rests=to_read(dealt, each),
        follows=_numbers([one.asked.follows if one else 0 for one in rows]),
        limits=_limits([one.asked.limits if one else Limits(0, 0, ()) for one in rows], vocab_size),
        where=_numbers([one.slot if one else beyond for one in rows]),
    )


def _filled(dealt: Rows, each: int) -> list[Placed | None]:
    return [one for shard in dealt for one in (*shard, *[None] * (each - len(shard)))]


def _features(one: Placed) -> np.ndarray:
    return np.full(len(one.asked.tokens), -1, np.int32) if one.features is None else one.features


def _texts(rows: Sequence[np.ndarray | None], size: int, fill: int) -> np.ndarray:
    """i32[R, size, ...], right-padded with `fill`."""
    inner = next(row.shape[1:] for row in rows if row is not None)
    texts = np.full((len(rows), size, *inner), fill, np.int32)
    for text, row in zip(texts, rows, strict=True):
        if row is not None:
            text[: len(row)] = row
    return texts


def _numbers(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, np.int32)


def _limits(limits: Sequence[Limits], vocab_size: int) -> slots.Limits:
    stops = np.full((len(limits), slots.STOPS), vocab_size, np.int32)
    for row, one in zip(stops, limits, strict=True):
        row[: len(one.stop_ids)] = one.stop_ids
    most, least = np.asarray([(one.max_new, one.min_new) for one in limits], np.int32).T
    # 1 - top_p is rounded once, from a double, as in transformers
    temperature, tail = np.asarray([(one.temperature, 1.0 - one.top_p) for one in limits], np.float32).T
    seed = np.asarray([(one.seed, one.content) for one in limits], np.uint32)
    return slots.Limits(*map(np.ascontiguousarray, (most, least, stops, temperature, tail, seed)))
