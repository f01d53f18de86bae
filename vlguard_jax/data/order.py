"""The order of an epoch's samples.

`modality_length` is the reference's sampler (llava/train/llava_trainer.py:38-148): megabatches with and without
pictures, with samples of similar length side by side, so that the devices of a step have similar work. Its randomness
comes from a source of permutations, so that a recorded run can be reproduced exactly.

`deal_windows` changes such an order slightly, so that the steps have about the same number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float64, Int64
import numpy as np

from vlguard_jax import errors

Lengths = Sequence[int] | Int64[np.ndarray, " n"]
Permute = Callable[[int], Lengths]

PICTURES, TEXT, MIXED = 0, 1, 2


def modality_grouped(lengths: Lengths, batch_size: int, world_size: int, permute: Permute) -> list[int]:
    """Order of the reference's sampler for `lengths` (words; negative: no picture).

    `world_size` is devices times accumulation steps. `permute(n)` is called for the samples with pictures, for those
    without, and for the megabatches, in this order; once only if all samples are of one kind.

    Raises:
      UserError: a sample has length zero.
    """
    words = np.asarray(lengths, np.int64)
    if len(silent := np.flatnonzero(words == 0)):
        raise errors.UserError(
            f"sample {silent[0]} has no words, so it cannot be grouped by length: remove it or change config.data.order"
        )
    kinds = [np.flatnonzero(words > 0), np.flatnonzero(words < 0)]
    if not all(len(kind) for kind in kinds):
        return _length_grouped(words, batch_size, world_size, permute).tolist()
    size = batch_size * world_size
    megabatches, leftovers = [], []
    for kind in kinds:
        grouped = kind[_length_grouped(np.abs(words[kind]), batch_size, world_size, permute)]
        last = (len(grouped) - 1) // size * size  # the last megabatch stays apart, even if it is full
        megabatches.append(grouped[:last].reshape(-1, size))
        leftovers.append(grouped[last:])
    blocks = np.concatenate(megabatches)
    blocks = blocks[np.asarray(permute(len(blocks)), np.int64)]
    return np.concatenate([blocks.reshape(-1), np.sort(np.concatenate(leftovers))]).tolist()


def epoch_order(
    kind: str, lengths: Lengths, batch_size: int, group_size: int, seed: int, epoch: int
) -> Int64[np.ndarray, " n"]:
    """Sample positions of one epoch of our own runs: a pure function of its arguments.

    `kind` is "modality_length", "shuffle" or "sequential"; `batch_size` is the whole step's, `group_size` one device's.
    """
    rng = np.random.default_rng([seed, epoch])
    if kind == "sequential":
        return np.arange(len(lengths), dtype=np.int64)
    if kind == "shuffle":
        return rng.permutation(len(lengths)).astype(np.int64)
    if kind == "modality_length":
        return np.asarray(modality_grouped(lengths, group_size, batch_size // group_size, rng.permutation), np.int64)
    raise ValueError(f"unknown order {kind!r}")


def deal_windows(
    samples: Int64[np.ndarray, "s b"], tokens: Int64[np.ndarray, " n"], kinds: Int64[np.ndarray, " s"], window: int
) -> Int64[np.ndarray, "s b"]:
    """Redistribute the samples of every `window` consecutive steps among these steps, so that their `tokens` are about
    equal.

    Longest first, each sample goes to the lightest step with room, among steps of the same kind (`step_kinds`; MIXED
    steps keep their samples). The samples of a step keep their order.
    """
    whole = len(samples) // window * window
    parts = [samples[:whole].reshape(-1, window, samples.shape[1]), samples[None, whole:]]
    kinds_of = [kinds[:whole].reshape(-1, window), kinds[None, whole:]]
    dealt = [
        _deal_window(*part, tokens).reshape(-1, samples.shape[1])
        for part in zip(parts, kinds_of, strict=True)
        if part[0].size
    ]
    return np.concatenate([samples[:0], *dealt])


def step_kinds(samples: Int64[np.ndarray, "s b"], words: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " s"]:
    """Whether a step has PICTURES in every sample, in none (TEXT), or is MIXED.

    `words` are negative for samples without pictures.
    """
    shown = (words > 0)[samples]
    return np.where(shown.all(1), PICTURES, np.where(shown.any(1), MIXED, TEXT)).astype(np.int64)


def regroup(
    lengths: Int64[np.ndarray, " n"], blocks: Int64[np.ndarray, "p b"], groups: int
) -> Int64[np.ndarray, "p b"]:
    """Form the `groups` equal groups of every block as the reference does: longest first, each sample to the group with
    room that has the smallest total so far. The groups of a block are consecutive."""
    longest_first = np.take_along_axis(blocks, np.argsort(-lengths[blocks], axis=1, kind="stable"), 1)
    group = deal(lengths[longest_first].astype(np.float64), groups)
    return np.take_along_axis(longest_first, np.argsort(group, axis=1, kind="stable"), 1)


def deal(
    weights: Float64[np.ndarray, "p n"],
    bins: int,
    item_kinds: Int64[np.ndarray, "p n"] | None = None,
    bin_kinds: Int64[np.ndarray, "p bins"] | None = None,
) -> Int64[np.ndarray, "p n"]:
    """The bin of every item: in order, each goes to the lightest bin with room, the first of equals.

    Every bin takes n / `bins` items. With kinds, an item goes only to bins of its kind, whose room must equal the
    number of items of that kind. All p problems are solved at once.
    """
    problems, items = weights.shape
    found = np.empty((problems, items), np.int64)
    totals = np.zeros((problems, bins))
    room = np.full((problems, bins), items // bins)
    each = np.arange(problems)
    for i in range(items):
        open_to = totals if item_kinds is None else np.where(bin_kinds == item_kinds[:, i, None], totals, np.inf)
        lightest = open_to.argmin(1)
        found[:, i] = lightest
        room[each, lightest] -= 1
        totals[each, lightest] = np.where(room[each, lightest] > 0, totals[each, lightest] + weights[:, i], np.inf)
    return found


def _deal_window(
    steps: Int64[np.ndarray, "p w b"], kinds: Int64[np.ndarray, "p w"], tokens: Int64[np.ndarray, " n"]
) -> np.ndarray:
    """The p windows of w steps, redistributed."""
    problems, window, size = steps.shape
    samples = steps.reshape(problems, window * size)
    # Each mixed step is a separate kind.
    kinds = np.where(kinds == MIXED, MIXED + np.arange(window), kinds)
    turns = np.argsort(-tokens[samples], axis=1, kind="stable")
    item_kinds = np.take_along_axis(np.repeat(kinds, size, 1), turns, 1)
    step = np.empty_like(samples)
    weights = np.take_along_axis(tokens[samples], turns, 1).astype(np.float64)
    np.put_along_axis(step, turns, deal(weights, window, item_kinds, kinds), 1)
    return np.take_along_axis(samples, np.argsort(step, axis=1, kind="stable"), 1)


def _length_grouped(
    words: Int64[np.ndarray, " n"], batch_size: int, world_size: int, permute: Permute
) -> Int64[np.ndarray, " n"]:
    drawn = np.asarray(permute(len(words)), np.int64)
    whole = len(drawn) // (batch_size * world_size) * (batch_size * world_size)
    blocks, rest = drawn[:whole].reshape(-1, batch_size * world_size), drawn[whole:]
    if len(rest) % world_size == 0:
        last = regroup(words, rest[None], world_size)[0]
    else:
        longest_first = rest[np.argsort(-words[rest], kind="stable")]
        last = np.concatenate([longest_first[i::world_size] for i in range(world_size)])
    return np.concatenate([regroup(words, blocks, world_size).reshape(-1), last])
