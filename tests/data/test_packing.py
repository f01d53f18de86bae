"""Rows of every step: nothing split, lost or too full, and how close to the least they come."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.data.packed import LAYOUTS
from tests.data.packed import check
from tests.data.packed import loads
from tests.data.packed import steps_of
from vlguard_jax.data import packing


@hypothesis.given(
    seed=st.integers(0, 999),
    steps=st.integers(1, 5),
    samples=st.integers(1, 12),
    longest=st.integers(1, 70),
    layout=st.sampled_from(LAYOUTS),
    multiple=st.sampled_from([1, 8]),
    max_row_len=st.integers(1, 120),
)
@hypothesis.settings(max_examples=150, deadline=None)
def test_every_step_fits_its_rows(
    seed: int, steps: int, samples: int, longest: int, layout: tuple[int, int], multiple: int, max_row_len: int
) -> None:
    lengths, pictures = steps_of(seed, steps, samples, longest)
    settings = {"multiple": multiple, "micro_rows": layout[0], "shards": layout[1]}
    packed = packing.pack(lengths, pictures, **settings, max_row_len=max_row_len)
    check(packed, lengths, pictures, *layout, multiple)
    assert packed.row_len <= max(max_row_len, packing.rounded_up(lengths.max(), multiple))
    assert packed.rows * packed.row_len >= packing.bounds(lengths, **settings, max_row_len=max_row_len).max()
    again = packing.pack(lengths, pictures, **settings, max_row_len=max_row_len)
    np.testing.assert_array_equal(packed.row, again.row)

    padded = packing.pad(lengths, pictures, **settings)
    check(padded, lengths, pictures, *layout, multiple)
    assert padded.row_len - lengths.max() < multiple and padded.rows - samples < (layout[0] or layout[1])
    assert all(
        row[row >= 0].tolist() == list(range(n)) for row, n in zip(padded.row, (lengths > 0).sum(1), strict=True)
    )
    assert packed.rows * packed.row_len <= padded.rows * padded.row_len or padded.row_len > max_row_len


@pytest.mark.parametrize("lengths", [[6, 5, 3, 2, 2, 2], [14, 11, 5, 3, 3, 2, 2]])
def test_two_full_rows_are_found(lengths: list[int]) -> None:
    """Best fit alone finds neither: it makes 6 + 3 and 5 + 2 + 2, and has no room for the last 2.

    Exchanging samples repairs that: 6 + 2 + 2 and 5 + 3 + 2 fill the rows; the second step also needs another order.
    """
    packed = packing.pack(
        np.array([lengths]), np.zeros((1, len(lengths)), np.int64), multiple=1, max_row_len=24, micro_rows=0, shards=2
    )
    assert (packed.rows, packed.row_len) == (2, sum(lengths) // 2)
    assert loads(packed, np.array([lengths])).tolist() == [[packed.row_len] * 2]


def smallest(lengths: list[int], unit: int, multiple: int, max_row_len: int) -> int:
    """Computed tokens of the best shape, by trying every way of giving samples to rows."""
    best = len(lengths) * 10**6
    for rows in range(unit, packing.rounded_up(len(lengths), unit) + 1, unit):
        for row in itertools.product(range(rows), repeat=len(lengths)):
            fullest = int(np.bincount(row, weights=lengths, minlength=rows).max())
            row_len = packing.rounded_up(fullest, multiple)
            if row_len <= max(max_row_len // multiple * multiple, packing.rounded_up(max(lengths), multiple)):
                best = min(best, rows * row_len)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_close_to_the_least_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 20, 5)
    found = packing.pack(
        lengths[None], np.zeros((1, 5), np.int64), multiple=2, max_row_len=24, micro_rows=0, shards=1 + seed % 2
    )
    assert found.rows * found.row_len == smallest(lengths.tolist(), 1 + seed % 2, 2, 24)


@pytest.mark.parametrize(
    "shards,even,share", [(1, False, 1.0), (8, False, 1.11), (8, True, 1.11), (16, True, 1.11), (32, False, 1.4)]
)
def test_full_steps_come_close_to_what_their_tokens_need(shards: int, even: bool, share: float) -> None:
    """128 conversations a step; the fullest step sets the shape.

    Rows of up to 8,192 tokens, pictures spread over the shards.
    """
    rng = np.random.default_rng(0)
    pictures = (rng.random((200, 128)) < 0.94).astype(np.int64)
    lengths = np.minimum(
        2048, np.where(pictures, 612 + rng.lognormal(5.2, 0.55, (200, 128)), rng.lognormal(7, 0.6, (200, 128)))
    ).astype(np.int64)
    if even:  # every step gets the same total
        lengths[:, -1] = 60
        lengths[:, -2] = 1100
        lengths = lengths[:1].repeat(200, 0)
        lengths = rng.permuted(lengths, axis=1)
        pictures = (lengths > 611).astype(np.int64)
    packed = packing.pack(lengths, pictures, multiple=128, max_row_len=8192, micro_rows=0, shards=shards)
    check(packed, lengths, pictures, 0, shards, 128)
    granularity = packed.rows * 128 / lengths.sum(1).max()
    assert packed.rows * packed.row_len / lengths.sum(1).max() < 1 + granularity * (1 if shards < 32 else 2)
    assert packed.units <= share * pictures.sum(1).max() / shards + 1


def test_rows_are_numbered_so_that_shards_have_even_pictures() -> None:
    """Rows of 4, 4, 1 and 1 pictures, two rows to a shard: five pictures each."""
    row = np.array([[0] * 4 + [1] * 4 + [2, 3]], np.int32)
    again, most = packing.spread(row, np.ones((1, 10), np.int64), 4, 2)
    assert most == 5
    counts = np.bincount(again[0], minlength=4)
    assert counts.reshape(2, 2).sum(1).tolist() == [5, 5] and sorted(counts.tolist()) == [1, 1, 4, 4]
    assert all(len(set(again[0][row[0] == r])) == 1 for r in range(4))


def test_few_pictures_to_a_shard_where_the_tokens_allow_it() -> None:
    """The first step needs rows of 90 tokens, of which one would hold all six pictures of the second."""
    lengths = np.array([[90, 90, 0, 0, 0, 0, 0], [30, 10, 10, 10, 10, 10, 10]])
    packed = packing.pack(
        lengths, (lengths == 10).astype(np.int64), multiple=10, max_row_len=90, micro_rows=0, shards=2
    )
    assert (packed.rows, packed.row_len, packed.units) == (2, 90, 3)


@hypothesis.given(needs=st.lists(st.integers(1, 12), min_size=1, max_size=12), count=st.integers(1, 4))
@hypothesis.settings(max_examples=150, deadline=None)
def test_levels_cost_least(needs: list[int], count: int) -> None:
    def cost(level: Any) -> int:
        return sum(max(n for n, other in zip(needs, level, strict=True) if other == one) for one in level)

    found = packing.levels(np.array(needs), count)
    assert len(set(found.tolist())) == found.max() + 1 <= count
    values = sorted(set(needs))
    assert [need for _, need in sorted(zip(found.tolist(), needs, strict=True))] == sorted(needs)
    cuts = itertools.combinations(values[1:], min(count, len(values)) - 1)
    assert cost(found) == min(cost([sum(need >= cut for cut in some) for need in needs]) for some in cuts)
