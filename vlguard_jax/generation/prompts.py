"""Prompts as the programs read them: expanded, checked, and laid out in the rows of a prefill."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import ranges
from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.generation import lengths
from vlguard_jax.generation import slots

_RULES = {
    **{name: ranges.rules(settings_lib.DecodeSettings)[name] for name in ("temperature", "top_p")},
    "seed": ranges.rules(settings_lib.EvalConfig)["seed"],
}


class Shape(NamedTuple):
    """What the program of a prompt's prefill depends on; prompts of one shape are read together. tokens: padded; room:
    for its pictures."""

    tokens: int
    room: family.Room


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


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt on its way: without its pictures, with the sample that holds them."""

    prompt: types.Prompt
    sample: batches.Sample
    shape: Shape
    limits: Limits

    @property
    def length(self) -> int:
        """Slots of the cache for the prompt, without those of its answer."""
        return lengths.room(self.shape.tokens)


def asked(config: family.Config, prompt: types.Prompt, limits: Limits) -> Asked:
    """A prompt, expanded.

    Raises:
      UserError: pictures for a model without a tower, more or fewer pictures than the prompt has tags for, an id that
        is not the model's, or a temperature, top_p or seed that no setting may have.
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
    tokens = types.Tokens(prompt.ids, np.full(len(prompt.ids), types.IGNORE_LABEL, np.int32))
    extents = [picture.extent for picture in prompt.pictures]
    sample = batches.expand(tokens, [extent.slots for extent in extents], None, None)
    taken = sum(extent.slots for extent in extents)
    # Slots that depend on the picture's size are rounded up, too, so that few programs are compiled.
    room = family.Room(sum(extent.units for extent in extents), lengths.padded(taken) if sees and sees.sized else taken)
    shape = Shape(lengths.padded(len(sample.tokens)), room)
    sample = dataclasses.replace(sample, pictures=prompt.pictures)
    if limits.temperature > 0:
        limits = dataclasses.replace(limits, content=_content(prompt))
    return Asked(dataclasses.replace(prompt, pictures=()), sample, shape, limits)


def _content(prompt: types.Prompt) -> int:
    """32 bits of a hash of its ids and pictures."""
    hashed = hashlib.sha256(np.ascontiguousarray(prompt.ids, "<i4").tobytes())
    for picture in prompt.pictures:
        for name, array in sorted(picture.arrays.items()):
            hashed.update(f"{name} {array.dtype.str} {array.shape}".encode())
            hashed.update(np.ascontiguousarray(array))
    return int.from_bytes(hashed.digest()[:4], "little")


def check_ids(ids: np.ndarray, rows: int, what: str) -> None:
    """Refuse ids out of range: JAX would take the last row for an id beyond it, and count negative ones from the
    end.

    Raises:
      UserError: there is one.
    """
    if len(wrong := ids[(ids < 0) | (ids >= rows)]):
        raise errors.UserError(f"{what}: the token {wrong[0]} is not one of the model's, which has {rows:,} rows")


class Rows(NamedTuple):
    """Arguments of `slots.admit` after the slots, on the host."""

    batch: types.Batch
    last: np.ndarray
    follows: np.ndarray
    limits: slots.Limits
    where: np.ndarray


def rows(config: family.Config, shards: Sequence[Sequence[tuple[int, Asked]]], each: int, beyond: int) -> Rows:
    """Prompts of one shape, dealt to row shards as (slot in the shard, prompt), in `each` rows of every shard. beyond:
    the slot of empty rows."""
    shape = next(one.shape for shard in shards for _, one in shard)
    room = family.Room(each * shape.room.units, each * shape.room.slots)
    parts, last, follows, where, limits = [], [], [], [], []
    for shard in shards:
        empty = each - len(shard)
        samples = [one.sample for _, one in shard]
        filled = [[sample] for sample in samples] + [[]] * empty
        weights = [[0.0] * len(row) for row in filled]
        parts.append(batches.collate(filled, weights, row_len=shape.tokens, room=room, model=config))
        last += [len(sample.tokens) - 1 for sample in samples] + [-1] * empty
        follows += [batches.positions(config, sample)[1] for sample in samples] + [0] * empty
        where += [slot for slot, _ in shard] + [beyond] * empty
        limits += [one.limits for _, one in shard] + [Limits(0, 0, ())] * empty
    batch, one_each = batches.joined(list(enumerate(parts)), room), np.asarray([last, follows, where], np.int32)
    return Rows(batch, one_each[0], one_each[1], _limits(limits, config.text.vocab_size), one_each[2])


def _limits(limits: Sequence[Limits], vocab_size: int) -> slots.Limits:
    stops = np.full((len(limits), slots.STOPS), vocab_size, np.int32)
    for row, one in zip(stops, limits, strict=True):
        row[: len(one.stop_ids)] = one.stop_ids
    most, least = np.asarray([(one.max_new, one.min_new) for one in limits], np.int32).T
    # 1 - top_p is rounded once, from a double, as in transformers
    temperature, tail = np.asarray([(one.temperature, 1.0 - one.top_p) for one in limits], np.float32).T
    seed = np.asarray([(one.seed, one.content) for one in limits], np.uint32)
    return slots.Limits(*map(np.ascontiguousarray, (most, least, stops, temperature, tail, seed)))
