"""Token sequences with pictures in them, and rows of them put together for the device.

Source: llava/train/train.py:741-773 (collator) and llava/model/llava_arch.py:145-324 (image expansion).
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from jaxtyping import Float32, Int32, UInt8
import numpy as np

from vlguard_jax import types


@dataclasses.dataclass(frozen=True)
class Sample:
    """One conversation after image expansion and truncation: what takes part in training.

    tokens i32[n] (0 at image slots); labels i32[n], not shifted; picture i32[n], which of the sample's pictures stands
    there (-1: text); patch i32[n], which of its patches; images: the pictures that are still there, u8[S, S, 3], when
    loaded.
    """

    tokens: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    picture: Int32[np.ndarray, " n"]
    patch: Int32[np.ndarray, " n"]
    images: tuple[UInt8[np.ndarray, "S S 3"], ...] = ()

    @property
    def num_pictures(self) -> int:
        """Pictures of which at least one patch is left after truncation."""
        return int(self.picture.max(initial=-1)) + 1

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss sees: labels that some position predicts, so the first one never counts."""
        return int((self.labels[1:] != types.IGNORE_LABEL).sum())


def expand(tokens: types.Tokens, patches: Sequence[int], max_len: int | None, pad_id: int | None) -> Sample:
    """Put `patches[k]` slots in place of the k-th picture and cut at `max_len`, before expansion and again after it.

    The second cut may fall inside a picture. The reference derives its attention mask from ids != `pad_id`, so a
    literal pad (= unknown) token in the text is deleted; with `pad_id=None` it stays, as in generation. `max_len=None`
    cuts nothing.

    Raises:
      ValueError: fewer numbers in `patches` than pictures in `tokens`.
    """
    ids, labels = tokens.ids[:max_len], tokens.labels[:max_len]
    if pad_id is not None:
        real = ids != pad_id
        ids, labels = ids[real], labels[real]
    is_picture = ids == types.IMAGE_TOKEN
    count = int(is_picture.sum())
    if count > len(patches):
        raise ValueError(f"{count} pictures in the text, {len(patches)} given")
    widths = np.ones(len(ids), np.int64)
    widths[is_picture] = np.asarray(patches[:count], np.int64)
    source = np.repeat(np.arange(len(ids)), widths)
    starts = np.cumsum(widths) - widths
    inside = is_picture[source]
    order = np.cumsum(is_picture)[source] - 1
    offset = np.arange(len(source)) - starts[source]

    def cut(values: np.ndarray) -> Int32[np.ndarray, " n"]:
        return values[:max_len].astype(np.int32)

    return Sample(
        tokens=cut(np.where(inside, 0, ids[source])),
        labels=cut(np.where(inside, types.IGNORE_LABEL, labels[source])),
        picture=cut(np.where(inside, order, -1)),
        patch=cut(np.where(inside, offset, 0)),
    )


def collate(
    rows: Sequence[Sequence[Sample]],
    weights: Sequence[Sequence[float]],
    sources: Sequence[Sequence[int]] | None = None,
    *,
    row_len: int,
    num_images: int,
    patches: int,
    image_size: int,
) -> types.Batch:
    """Lay samples out in rows of `row_len` tokens, one after the other in each row; an empty row is all padding.

    `weights[r][i]` is the loss weight of each supervised token of sample `rows[r][i]`, `sources[r][i]` the number of
    its source (None: all are of source 0). Pictures are numbered from 0 in reading order and the array is filled up
    with zeros to `num_images`, so the rows of one shard are one call and the next shard's image slots lie num_images *
    patches further. `patches` is P, the slots a picture takes. Positions count from 0 in each sample; targets are the
    labels of the next position, so the last one of each sample is ignored.

    Raises:
      ValueError: a row or the pictures do not fit.
    """
    shape = (len(rows), row_len)
    sources = [[0] * len(row) for row in rows] if sources is None else sources
    batch = types.Batch(
        tokens=np.zeros(shape, np.int32),
        targets=np.full(shape, types.IGNORE_LABEL, np.int32),
        loss_weight=np.zeros(shape, np.float32),
        segment_ids=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        images=np.zeros((num_images, image_size, image_size, 3), np.uint8),
        image_slot=np.full(shape, -1, np.int32),
        source=np.full(shape, -1, np.int32),
    )
    seen = 0
    for r, of_row in enumerate(zip(rows, weights, sources, strict=True)):
        start = 0
        for segment, (sample, weight, source) in enumerate(zip(*of_row, strict=True), start=1):
            if start + len(sample.tokens) > row_len:
                raise ValueError(f"row {r} holds more than {row_len} tokens")
            if seen + sample.num_pictures > num_images:
                raise ValueError(f"more than {num_images} pictures in a batch")
            at = (r, slice(start, start + len(sample.tokens)))
            _write(batch, at, sample, weight, segment, seen, patches)
            batch.source[at] = source
            start += len(sample.tokens)
            seen += sample.num_pictures
    return batch


def _write(
    batch: types.Batch, at: tuple[int, slice], sample: Sample, weight: float, segment: int, seen: int, patches: int
) -> None:
    targets = np.append(sample.labels[1:], np.int32(types.IGNORE_LABEL))
    batch.tokens[at] = sample.tokens
    batch.targets[at] = targets
    batch.loss_weight[at] = _weights(targets, weight)
    batch.segment_ids[at] = segment
    batch.positions[at] = np.arange(len(targets))
    batch.image_slot[at] = np.where(sample.picture >= 0, (sample.picture + seen) * patches + sample.patch, -1)
    for i in range(sample.num_pictures):
        batch.images[seen + i] = sample.images[i]


def _weights(targets: Int32[np.ndarray, " n"], weight: float) -> Float32[np.ndarray, " n"]:
    return np.where(targets != types.IGNORE_LABEL, weight, 0.0).astype(np.float32)
