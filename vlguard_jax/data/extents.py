"""Slots and units of the pictures in conversations, counted once the pictures' sizes are known."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

from jaxtyping import Int64
import numpy as np

from vlguard_jax import types
from vlguard_jax.data import file_index
from vlguard_jax.data import tokenization as tokenization_lib


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts of every record of a file, as in `index.SampleIndex`; records that were not picked have the file index's.

    too_long: records whose last picture does not end within max_len, with its end.
    """

    length: Int64[np.ndarray, " n"]
    supervised: Int64[np.ndarray, " n"]
    units: Int64[np.ndarray, " n"]
    slots: Int64[np.ndarray, " n"]
    too_long: Mapping[int, int]


def count(
    found: file_index.FileIndex,
    picked: Int64[np.ndarray, " m"],
    records: file_index.Records,
    tokenization: tokenization_lib.Tokenization,
    sizes: Mapping[str, types.Size],
) -> Counts:
    """Counts of the `picked` records. sizes: of their pictures; used where slots depend on them."""
    if tokenization.cuts:
        (one,) = tokenization.extents([tokenization_lib.ANY])
        shown = found.pictures
        return Counts(found.length, found.supervised, shown * one.units, shown * one.slots, {})
    length, supervised = found.length.copy(), found.supervised.copy()
    units, slots = np.zeros_like(length), np.zeros_like(length)
    too_long = {}
    for i in dict.fromkeys(picked.tolist()):
        if not found.images[i]:
            continue
        used = int(found.pictures[i])
        extents = tokenization.extents(
            [sizes[name] if tokenization.sized else tokenization_lib.ANY for name in found.images[i]]
        )
        units[i] = sum(extent.units for extent in extents[:used])
        slots[i] = sum(extent.slots for extent in extents[:used])
        length[i] += slots[i]
        if length[i] > tokenization.max_len:  # the text after the pictures is truncated, never a picture
            whole = tokenization.expand(tokenization.tokens(records[i]), [one.slots for one in extents], whole=True)
            end = int(np.flatnonzero(whole.picture >= 0).max(initial=-1)) + 1
            if end > tokenization.max_len:
                too_long[i] = end
                continue
            cut = tokenization.sample(records[i], extents)
            length[i], supervised[i] = len(cut.tokens), cut.num_supervised
    return Counts(length, supervised, units, slots, too_long)
