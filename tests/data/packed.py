"""Steps for the tests of packing, and what every packing of them must hold."""

from __future__ import annotations

import numpy as np

from vlguard_jax.data import packing

LAYOUTS = [(0, 1), (0, 4), (2, 1), (2, 2), (6, 3)]  # rows of a micro-batch, shards


def steps_of(seed: int, steps: int, samples: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and pictures of steps, some of them short."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, (steps, samples))
    pictures = rng.choice([0, 1, 1, 1, 2], (steps, samples))
    for step, kept in enumerate(rng.integers(1, 3 * samples, steps).clip(1, samples)):
        lengths[step, kept:] = pictures[step, kept:] = 0
    return lengths, pictures


def loads(packed: packing.Packed, values: np.ndarray) -> np.ndarray:
    """[steps, rows]: what lies in each row."""
    sums = np.zeros((len(values), packed.rows), np.int64)
    for step, row in enumerate(packed.row):
        for i in np.flatnonzero(row >= 0):
            sums[step, row[i]] += values[step, i]
    return sums


def check(
    packed: packing.Packed, lengths: np.ndarray, pictures: np.ndarray, micro_rows: int, shards: int, multiple: int
) -> None:
    np.testing.assert_array_equal(packed.row >= 0, lengths > 0)  # every sample once, in one row
    assert packed.rows % (micro_rows or shards) == 0 and packed.row.max() < packed.rows
    assert packed.row_len % multiple == 0
    assert loads(packed, lengths).max() <= packed.row_len
    in_shard = (micro_rows or packed.rows) // shards
    assert loads(packed, pictures).reshape(len(lengths), -1, in_shard).sum(2).max() == packed.units
