"""What the planner knows about every sample before any picture is read."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from jaxtyping import Int64
import numpy as np

from vlguard_jax import types
from vlguard_jax.data import batches


@dataclasses.dataclass(frozen=True)
class SampleIndex:
    """One entry per sample; every count is taken after image expansion and both truncations.

    length: tokens, picture slots included. pictures: pictures with at least one patch left. supervised: tokens the loss sees
    (after the shift by one). modality_length: words of all turns, negative without a picture (llava/train/train.py:675-690).
    ids, sources: names of the record and of its source.
    """

    length: Int64[np.ndarray, " n"]
    pictures: Int64[np.ndarray, " n"]
    supervised: Int64[np.ndarray, " n"]
    modality_length: Int64[np.ndarray, " n"]
    ids: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised_share(self) -> float:
        """Supervised tokens over all tokens."""
        return float(self.supervised.sum() / max(1, self.length.sum()))


def modality_length(record: types.Record) -> int:
    """Whitespace-separated words of all turns, negative for a record without a picture."""
    words = sum(len(turn.text.split()) for turn in record.turns)
    return words if record.images else -words


def build_index(records: Sequence[types.Record], samples: Sequence[batches.Sample]) -> SampleIndex:
    """Count every sample; `records[i]` and `samples[i]` belong together."""
    rows = np.zeros((len(records), 4), np.int64)
    for i, (record, sample) in enumerate(zip(records, samples, strict=True)):
        rows[i] = len(sample.tokens), sample.num_pictures, sample.num_supervised, modality_length(record)
    length, pictures, supervised, words = rows.T
    return SampleIndex(
        length=length,
        pictures=pictures,
        supervised=supervised,
        modality_length=words,
        ids=tuple(record.id for record in records),
        sources=tuple(record.source for record in records),
    )
