"""Classes of steps whose pictures differ in size: nothing split, lost or too full, and units as even as they can be."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.data.packed import LAYOUTS
from tests.data.packed import check
from tests.data.packed import loads
from tests.data.packed import steps_of
from vlguard_jax.data import packing
from vlguard_jax.data import splitting


def sizes(multiple: int, max_row_len: int, micro_rows: int = 0, shards: int = 1) -> splitting.Sizes:
    return splitting.Sizes(multiple, max_row_len, micro_rows, shards)


def tiled(seed: int, steps: int, samples: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and tiles like LLaVA-NeXT's: most pictures have five tiles, some three; an eighth has none."""
    rng = np.random.default_rng(seed)
    units = rng.choice([0, 3, 5], (steps, samples), p=[0.125, 0.1, 0.775])
    text = rng.lognormal(5.3, 0.5, units.shape)
    shown = np.choose(units // 2, [0, 1476, 2340]) + rng.choice([0, 0, 0, -200, 588], units.shape) * (units > 3)
    return np.where(units, shown + text, np.minimum(4096, 5 * text)).astype(np.int64) + 36, units.astype(np.int64)


@hypothesis.given(
    seed=st.integers(0, 999),
    steps=st.integers(1, 8),
    samples=st.integers(1, 12),
    longest=st.integers(1, 70),
    layout=st.sampled_from(LAYOUTS),
    multiple=st.sampled_from([1, 8]),
    max_row_len=st.integers(1, 120),
    count=st.integers(1, 4),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_every_step_fits_its_rows(
    seed: int,
    steps: int,
    samples: int,
    longest: int,
    layout: tuple[int, int],
    multiple: int,
    max_row_len: int,
    count: int,
) -> None:
    lengths, units = steps_of(seed, steps, samples, longest)
    units *= 1 + lengths % 5
    units[0, 0] += 1
    asked = sizes(multiple, max_row_len, *layout)
    found = splitting.classes(lengths, units, count, asked)
    assert len(found) <= count
    assert sorted(np.concatenate([steps for steps, _ in found]).tolist()) == list(range(len(lengths)))
    for of, packed in found:
        assert packed.row_len <= max(max_row_len, packing.rounded_up(lengths.max(), multiple))
        in_shard = asked.in_shard(packed.rows)
        most = loads(packed, units[of]).reshape(len(of), -1, in_shard).sum(2).max()
        assert most <= packed.units
        check(packed, lengths[of], units[of], *layout, multiple)
    again = splitting.classes(lengths, units, count, asked)
    for (one, packed), (other, repeated) in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(packed.row, repeated.row)


@pytest.mark.parametrize("shards", [8, 16])
def test_two_classes_compute_less_than_one(shards: int) -> None:
    """Steps like LLaVA-NeXT's: tokens within 12 % and tiles within 15 % of what there are."""
    lengths, units = tiled(0, 100)
    asked = sizes(128, 8192, 0, shards)

    def computed(count: int) -> tuple[float, float]:
        found = splitting.classes(lengths, units, count, asked)
        tokens = sum(len(steps) * packed.rows * packed.row_len for steps, packed in found)
        return tokens / lengths.sum(), sum(len(steps) * packed.units for steps, packed in found) * shards / units.sum()

    one, two = computed(1), computed(2)
    assert two[0] < 0.99 * one[0] and two[0] <= 1.12 and two[1] <= min(one[1], 1.15)


def test_units_are_evened_out_by_exchanging_samples() -> None:
    """Two shards of two rows with 20 units and none: 10 for each, as 5 + 5 and a text change places."""
    lengths = np.array([[4, 4, 4, 4, 8, 8]])
    units = np.array([[5, 5, 5, 5, 0, 0]])
    packed = packing.Packed(4, 8, np.array([[0, 0, 1, 1, 2, 3]], np.int32), 20)
    row, most = splitting.even(lengths, units, packed, 2, 10)
    assert most.tolist() == [20] and row.tolist() == packed.row.tolist()  # a text of 8 has no room for a 4
    lengths[0, 4:] = 4
    row, most = splitting.even(lengths, units, packed, 2, 10)
    assert most.tolist() == [10]
    check(packing.Packed(4, 8, row, 10), lengths, units, 0, 2, 8)
    again, most = splitting.even(lengths, units, packed, 2, 20)
    assert most.tolist() == [20] and again.tolist() == packed.row.tolist()  # even enough


@pytest.mark.parametrize("seed", range(6))
def test_no_shard_gets_fuller(seed: int) -> None:
    lengths, units = tiled(seed, 20)
    packed = packing.pack(lengths, units, multiple=128, max_row_len=8192, micro_rows=0, shards=16)
    in_shard = packed.rows // 16
    row, most = splitting.even(lengths, units, packed, in_shard, 0)
    before = loads(packed, units).reshape(20, 16, in_shard).sum(2)
    after = loads(packing.Packed(packed.rows, packed.row_len, row, 0), units).reshape(20, 16, in_shard).sum(2)
    assert (after.max(1) == most).all() and (most <= before.max(1)).all() and most.sum() < before.max(1).sum()
    check(packing.Packed(packed.rows, packed.row_len, row, int(most.max())), lengths, units, 0, 16, 128)


def test_a_step_with_uneven_units_goes_into_the_larger_shape() -> None:
    """Where that costs less than room for it in every shard of all other steps."""
    most = np.array([7] * 99 + [9])
    assert splitting._limit(most, 100, price=1.0, apart=100) == 7
    assert splitting._limit(most, 100, price=1.0, apart=300) == 9
