"""In which order an epoch visits its samples.

`modality_length` is the reference's sampler (llava/train/llava_trainer.py:38-148): samples with and without pictures in separate
runs, and inside each run samples of similar length next to each other, so that the devices of a step have similar work.
Its randomness is a source of permutations, so that a recorded run can be followed exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Int64
import numpy as np

from vlguard_jax import errors

Permute = Callable[[int], Sequence[int]]


def modality_grouped(lengths: Sequence[int], batch_size: int, world_size: int, permute: Permute) -> list[int]:
    """Order of the reference's sampler for `lengths` (words; negative: no picture).

    `world_size` is devices times accumulation steps. `permute(n)` is called for the samples with pictures, for those without, and
    for the megabatches, in this order; once only if all samples are of one kind.

    Raises:
      UserError: a sample has length zero.
    """
    if any(length == 0 for length in lengths):
        raise errors.UserError(
            f"sample {list(lengths).index(0)} has no words, so it cannot be grouped by length: remove it or change config.data.order"
        )
    with_picture = [i for i, length in enumerate(lengths) if length > 0]
    text_only = [i for i, length in enumerate(lengths) if length < 0]
    if not with_picture or not text_only:
        return _length_grouped(lengths, batch_size, world_size, permute)
    megabatches, leftovers = [], []
    for kind in (with_picture, text_only):
        grouped = _length_grouped([abs(lengths[i]) for i in kind], batch_size, world_size, permute)
        blocks = _blocks([kind[i] for i in grouped], batch_size * world_size)
        megabatches += blocks[:-1]
        leftovers += blocks[-1]  # also when it is full
    order = [i for block in permute(len(megabatches)) for i in megabatches[block]]
    return order + sorted(leftovers)


def epoch_order(kind: str, lengths: Sequence[int], batch_size: int, group_size: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """Sample positions of one epoch of our own runs: a pure function of its arguments.

    `kind` is "modality_length", "shuffle" or "sequential"; `batch_size` is the whole step's, `group_size` one device's.
    """
    rng = np.random.default_rng([seed, epoch])
    if kind == "sequential":
        return np.arange(len(lengths), dtype=np.int64)
    if kind == "shuffle":
        return rng.permutation(len(lengths)).astype(np.int64)
    if kind == "modality_length":
        order = modality_grouped(lengths, group_size, batch_size // group_size, lambda n: rng.permutation(n).tolist())
        return np.asarray(order, np.int64)
    raise ValueError(f"unknown order {kind!r}")


def _length_grouped(lengths: Sequence[int], batch_size: int, world_size: int, permute: Permute) -> list[int]:
    order = []
    for block in _blocks(list(permute(len(lengths))), batch_size * world_size):
        longest_first = sorted(block, key=lambda i: lengths[i], reverse=True)
        for chunk in _deal(longest_first, lengths, world_size):
            order += chunk
    return order


def _deal(block: list[int], lengths: Sequence[int], chunks: int) -> list[list[int]]:
    """Split `block` so that each chunk gets the same number of samples and about the same total length."""
    if len(block) % chunks:
        return [block[i::chunks] for i in range(chunks)]
    size = len(block) // chunks
    dealt: list[list[int]] = [[] for _ in range(chunks)]
    totals = [0.0] * chunks
    for i in block:
        lightest = totals.index(min(totals))
        dealt[lightest].append(i)
        totals[lightest] = totals[lightest] + lengths[i] if len(dealt[lightest]) < size else float("inf")
    return dealt


def _blocks(values: list[int], size: int) -> list[list[int]]:
    return [values[i : i + size] for i in range(0, len(values), size)]
