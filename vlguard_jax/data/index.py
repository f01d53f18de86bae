"""The counts of every sample, known before any picture is read."""

from __future__ import annotations

import dataclasses
import hashlib

from jaxtyping import Int32, Int64
import numpy as np


@dataclasses.dataclass(frozen=True)
class SampleIndex:
    """One entry per sample; every count is taken after image expansion and both truncations.

    length: tokens, slots of pictures included. pictures: those with at least one slot left; units, slots: of these
    pictures (types.Extent), before truncation. supervised: tokens in the loss (after the shift by one).
    modality_length: words of all turns, negative without a picture (llava/train/train.py:675-690).
    ids: names of the samples, unique within a source. source: which of `source_names` each comes from.
    """

    length: Int64[np.ndarray, " n"]
    pictures: Int64[np.ndarray, " n"]
    units: Int64[np.ndarray, " n"]
    slots: Int64[np.ndarray, " n"]
    supervised: Int64[np.ndarray, " n"]
    modality_length: Int64[np.ndarray, " n"]
    ids: tuple[str, ...]
    source: Int32[np.ndarray, " n"]
    source_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """sha256 over all fields."""
        digest = hashlib.sha256("\n".join((*self.source_names, *self.ids)).encode("utf-8", "surrogatepass"))
        for counts in (
            self.length,
            self.pictures,
            self.units,
            self.slots,
            self.supervised,
            self.modality_length,
            self.source,
        ):
            digest.update(np.ascontiguousarray(counts).tobytes())
        return digest.hexdigest()

    @property
    def supervised_share(self) -> float:
        """Share of supervised tokens in all tokens."""
        return float(self.supervised.sum() / max(1, self.length.sum()))
