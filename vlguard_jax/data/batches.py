"""Token sequences with pictures, and their collation into rows for the device.

Source: llava/train/train.py:741-773 (collator) and llava/model/llava_arch.py:145-324 (image expansion).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from jaxtyping import Float32, Int32
import numpy as np

from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families import table


@dataclasses.dataclass(frozen=True)
class Sample:
    """One conversation after image expansion and truncation, as it is trained on.

    tokens i32[n] (0 at slots of pictures); labels i32[n], not shifted; picture i32[n], index of the sample's picture at
    each position (-1: text); place i32[n], index of its slot; pictures: those left after truncation, when loaded.
    """

    tokens: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    picture: Int32[np.ndarray, " n"]
    place: Int32[np.ndarray, " n"]
    pictures: tuple[types.Picture, ...] = ()

    @property
    def num_pictures(self) -> int:
        """Number of pictures with at least one slot left after truncation."""
        return int(self.picture.max(initial=-1)) + 1

    @property
    def num_supervised(self) -> int:
        """Number of tokens in the loss: labels that a position predicts, so the first one never counts."""
        return int((self.labels[1:] != types.IGNORE_LABEL).sum())


def expand(tokens: types.Tokens, slots: Sequence[int], max_len: int | None, pad_id: int | None) -> Sample:
    """Replace the k-th picture by `slots[k]` slots and truncate at `max_len`, before expansion and again after it.

    The second truncation may fall inside a picture. The reference derives its attention mask from ids != `pad_id`, so a
    literal pad (= unknown) token in the text is deleted; with `pad_id=None` it stays, as in generation. `max_len=None`
    truncates nothing.

    Raises:
      ValueError: fewer numbers in `slots` than pictures in `tokens`.
    """
    ids, labels = tokens.ids[:max_len], tokens.labels[:max_len]
    if pad_id is not None and (real := ids != pad_id).sum() < len(ids):
        ids, labels = ids[real], labels[real]
    at = np.flatnonzero(ids == types.IMAGE_TOKEN).tolist()
    if len(at) > len(slots):
        raise ValueError(f"{len(at)} pictures in the text, {len(slots)} given")
    total = len(ids) - len(at) + sum(slots[: len(at)])
    new_tokens, place = np.zeros(total, np.int32), np.zeros(total, np.int32)
    new_labels, picture = np.full(total, types.IGNORE_LABEL, np.int32), np.full(total, -1, np.int32)
    end = read = 0
    for k, position in enumerate([*at, len(ids)]):
        start, end = end, end + position - read
        new_tokens[start:end], new_labels[start:end] = ids[read:position], labels[read:position]
        if k < len(at):
            start, end = end, end + slots[k]
            picture[start:end], place[start:end] = k, np.arange(slots[k])
        read = position + 1
    return Sample(new_tokens[:max_len], new_labels[:max_len], picture[:max_len], place[:max_len])


def positions(config: family.Config, sample: Sample) -> tuple[np.ndarray, int]:
    """Rotary positions of a sample with its pictures, i32[n] or i32[n, 3], and the position after them, where an answer
    continues."""
    extents = [picture.extent for picture in sample.pictures]
    return table.of(config).positions(config, family.Spans(sample.picture, sample.place, extents))


def pooled(config: family.Config, pictures: Sequence[types.Picture], room: family.Room) -> family.Arrays:
    """The arrays of a row shard's pictures, padded to its room; {} for a language model."""
    sees = table.of(config).pictures
    return sees.pool(config, pictures, room) if sees else {}


def collate(
    rows: Sequence[Sequence[Sample]],
    weights: Sequence[Sequence[float]],
    sources: Sequence[Sequence[int]] | None = None,
    places: Sequence[Sequence[int]] | None = None,
    *,
    row_len: int,
    room: family.Room,
    model: family.Config,
) -> types.Batch:
    """Lay out the samples of one row shard in rows of `row_len` tokens, one after another in each row; an empty row is
    all padding.

    `weights[r][i]` is the loss weight of each supervised token of sample `rows[r][i]`, `sources[r][i]` the number of
    its source (None: all are of source 0), `places[r][i]` its place in its step, which its segment id tells (None:
    counted in each row). Pictures are pooled in reading order, and slots count from 0 in the shard;
    `joined` joins shards. Positions are the family's and restart in each sample; targets are the labels of the next
    position, so the last one of each sample is ignored.

    Raises:
      ValueError: a row or the pictures do not fit.
    """
    shape = (len(rows), row_len)
    sources = [[0] * len(row) for row in rows] if sources is None else sources
    places = [range(len(row)) for row in rows] if places is None else places
    pictures = [picture for row in rows for sample in row for picture in sample.pictures]
    needed = family.Room(sum(p.extent.units for p in pictures), sum(p.extent.slots for p in pictures))
    if needed.units > room.units or needed.slots > room.slots:
        raise ValueError(f"pictures need {needed}, there is {room}")
    batch = types.Batch(
        tokens=np.zeros(shape, np.int32),
        targets=np.full(shape, types.IGNORE_LABEL, np.int32),
        loss_weight=np.zeros(shape, np.float32),
        segment_ids=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        pictures=pooled(model, pictures, room),
        slot=np.full(shape, -1, np.int32),
        source=np.full(shape, -1, np.int32),
    )
    first_slot = 0
    for r, of_row in enumerate(zip(rows, weights, sources, places, strict=True)):
        start = 0
        for sample, weight, source, place in zip(*of_row, strict=True):
            if start + len(sample.tokens) > row_len:
                raise ValueError(f"row {r} holds more than {row_len} tokens")
            if sample.num_pictures != len(sample.pictures):
                raise ValueError(f"row {r}: {len(sample.pictures)} pictures loaded, {sample.num_pictures} are used")
            at = (r, slice(start, start + len(sample.tokens)))
            _write(batch, at, sample, weight, place + 1, first_slot)
            batch.positions[at] = positions(model, sample)[0]
            batch.source[at] = source
            start += len(sample.tokens)
            first_slot += sum(picture.extent.slots for picture in sample.pictures)
    return batch


def joined(shards: Sequence[tuple[int, types.Batch]], room: family.Room) -> types.Batch:
    """One batch of row shards, each as (number, batch): rows and pictures one after another, slots counted over all."""

    def moved(number: int, batch: types.Batch) -> types.Batch:
        slot = np.where(batch.slot >= 0, batch.slot + np.int32(number * room.slots), np.int32(-1))
        return batch._replace(slot=slot)

    return combined([moved(*shard) for shard in shards], np.concatenate)


def combined(parts: Sequence[types.Batch], how: Callable[[list[np.ndarray]], np.ndarray]) -> types.Batch:
    """Batches combined array by array: `how` is np.concatenate or np.stack."""
    names = parts[0].pictures.keys()
    arrays = {name: how([getattr(part, name) for part in parts]) for name in types.Batch._fields if name != "pictures"}
    return types.Batch(pictures={name: how([part.pictures[name] for part in parts]) for name in names}, **arrays)


def _write(
    batch: types.Batch, at: tuple[int, slice], sample: Sample, weight: float, segment: int, first_slot: int
) -> None:
    targets = np.append(sample.labels[1:], np.int32(types.IGNORE_LABEL))
    batch.tokens[at] = sample.tokens
    batch.targets[at] = targets
    batch.loss_weight[at] = _weights(targets, weight)
    batch.segment_ids[at] = segment
    if sample.pictures:
        before = np.cumsum([0, *(picture.extent.slots for picture in sample.pictures)]) + first_slot
        batch.slot[at] = np.where(sample.picture >= 0, before[sample.picture] + sample.place, -1)


def _weights(targets: Int32[np.ndarray, " n"], weight: float) -> Float32[np.ndarray, " n"]:
    return np.where(targets != types.IGNORE_LABEL, weight, 0.0).astype(np.float32)
