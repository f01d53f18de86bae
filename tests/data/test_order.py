"""Orders of an epoch: the reference's sampler against a plain retelling of it, and dealing lengths within windows of
steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from vlguard_jax import errors
from vlguard_jax.data import order


def retold(lengths: list[int], batch_size: int, world_size: int, permute: Callable[[int], Any]) -> list[int]:
    """llava/train/llava_trainer.py:38-148, one sample after the other."""
    size = batch_size * world_size

    def grouped(some: list[int]) -> list[int]:
        found = []
        drawn = list(permute(len(some)))
        for at in range(0, len(drawn), size):
            block = sorted(drawn[at : at + size], key=lambda i: some[i], reverse=True)
            if len(block) % world_size:
                chunks = [block[i::world_size] for i in range(world_size)]
            else:
                chunks = [[] for _ in range(world_size)]
                totals = [0.0] * world_size
                for i in block:
                    k = totals.index(min(totals))
                    chunks[k].append(i)
                    totals[k] = totals[k] + some[i] if len(chunks[k]) < len(block) // world_size else float("inf")
            found += [i for chunk in chunks for i in chunk]
        return found

    shown = [i for i, length in enumerate(lengths) if length > 0]
    texts = [i for i, length in enumerate(lengths) if length < 0]
    if not shown or not texts:
        return grouped(lengths)
    blocks, rest = [], []
    for kind in (shown, texts):
        indices = [kind[i] for i in grouped([abs(lengths[i]) for i in kind])]
        parts = [indices[at : at + size] for at in range(0, len(indices), size)]
        blocks += parts[:-1]
        rest += parts[-1]
    return [i for k in permute(len(blocks)) for i in blocks[k]] + sorted(rest)


def permutations(seed: int) -> Callable[[int], np.ndarray]:
    return np.random.default_rng(seed).permutation


@hypothesis.given(
    lengths=st.lists(st.integers(-30, 30).filter(bool), min_size=1, max_size=150),
    batch_size=st.integers(1, 4),
    world_size=st.integers(1, 5),
    seed=st.integers(0, 9),
)
@hypothesis.settings(max_examples=200, deadline=None)
def test_reference_sampler(lengths: list[int], batch_size: int, world_size: int, seed: int) -> None:
    found = order.modality_grouped(lengths, batch_size, world_size, permutations(seed))
    assert found == retold(lengths, batch_size, world_size, permutations(seed))
    assert sorted(found) == list(range(len(lengths)))
    one_kind = [abs(length) for length in lengths]
    assert order.modality_grouped(one_kind, batch_size, world_size, permutations(seed)) == retold(
        one_kind, batch_size, world_size, permutations(seed)
    )


def test_zero_words_cannot_be_grouped() -> None:
    with pytest.raises(errors.UserError, match="sample 1 has no words"):
        order.modality_grouped([3, 0], 1, 1, lambda n: list(range(n)))


@pytest.mark.parametrize("kind", ["shuffle", "modality_length", "sequential"])
def test_epoch_order(kind: str) -> None:
    words = (np.random.default_rng(0).integers(1, 50, 40) * np.repeat([1, -1], 20)).astype(np.int64)
    first = order.epoch_order(kind, words, 8, 2, 5, 0)
    assert first.dtype == np.int64 and sorted(first.tolist()) == list(range(40))
    assert first.tolist() == order.epoch_order(kind, words, 8, 2, 5, 0).tolist()
    others = [order.epoch_order(kind, words, 8, 2, *at).tolist() for at in ((5, 1), (6, 0))]
    assert all((first.tolist() == other) == (kind == "sequential") for other in others)
    with pytest.raises(ValueError, match="unknown order"):
        order.epoch_order("other", words, 8, 2, 5, 0)


def test_deal_gives_each_item_to_the_lightest_bin_with_room() -> None:
    weights = np.array([[20.0, 5, 4, 3, 2, 1]])
    assert order.deal(weights, 2).tolist() == [[0, 1, 1, 1, 0, 0]]  # bin 1 is full after three
    kinds, bins = np.array([[0, 1, 0, 1, 0, 0]]), np.array([[0, 1, 0]])
    assert order.deal(weights, 3, kinds, bins).tolist() == [[0, 1, 2, 1, 2, 0]]


def windows(samples: np.ndarray, window: int) -> Iterator[slice]:
    for at in range(0, len(samples), window):
        yield slice(at, min(at + window, len(samples)))


@hypothesis.given(steps=st.integers(0, 25), size=st.integers(1, 8), window=st.integers(1, 12), seed=st.integers(0, 99))
@hypothesis.settings(max_examples=150, deadline=None)
def test_dealing_keeps_samples_in_their_window_kind_and_order(steps: int, size: int, window: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = steps * size + 3
    samples = rng.permutation(count)[: steps * size].reshape(steps, size)
    words = rng.choice([-1, 1], count) * rng.integers(1, 9, count)
    for step in samples[::3]:
        words[step] = np.abs(words[step])
    for step in samples[1::3]:
        words[step] = -np.abs(words[step])
    tokens = rng.integers(1, 100, count)
    kinds = order.step_kinds(samples, words)
    dealt = order.deal_windows(samples, tokens, kinds, window)
    assert dealt.shape == samples.shape
    place = {int(sample): i for i, sample in enumerate(samples.reshape(-1))}
    for part in windows(samples, window):
        for kind in (order.PICTURES, order.TEXT):
            here = kinds[part] == kind
            assert sorted(dealt[part][here].reshape(-1)) == sorted(samples[part][here].reshape(-1))
    np.testing.assert_array_equal(dealt[kinds == order.MIXED], samples[kinds == order.MIXED])
    assert all([place[int(i)] for i in step] == sorted(place[int(i)] for i in step) for step in dealt)


def test_dealing_evens_out_the_tokens() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.lognormal(6.5, 0.4, 64 * 20).astype(np.int64)
    samples = rng.permutation(64 * 20).reshape(20, 64)
    dealt = order.deal_windows(samples, tokens, np.zeros(20, np.int64), 10)
    before, after = tokens[samples].sum(1), tokens[dealt].sum(1)
    for part in windows(samples, 10):
        assert np.ptp(after[part]) < 0.05 * np.ptp(before[part])


def test_regroup_is_the_references_dealing() -> None:
    lengths = np.random.default_rng(3).integers(1, 40, 48)
    block = np.random.default_rng(4).permutation(48)[:24]
    expected = retold(lengths[block].tolist(), 6, 4, lambda n: range(n))
    assert order.regroup(lengths, block[None], 4).tolist() == [block[expected].tolist()]
