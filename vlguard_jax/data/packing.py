"""Packing: assigns each sample to a row of its step, for all steps of a run at once, so that few tokens are computed.

Arrays [s, n] have one line per step and one entry per sample of it; a length of 0 means that there is no sample.
Samples are never split. The only randomness is a few fixed draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import heapq
import itertools
from typing import Any

from jaxtyping import Bool, Int32, Int64, Integer
import numpy as np

from vlguard_jax.data import order

PROBES = 64  # steps that are packed first, the fullest and those that did not fit before, to reject shapes early
FIRST = 8  # probes that are tried first: they reject most shapes that are too small
CHUNK = 4096  # packings made at once, to bound memory
EXCHANGES = 1000  # limit per step; never reached in practice
NOISE = 0.03  # how much further, in the logarithm of lengths, each order deviates from longest first
# Initial packings, all of a tuple at once: (order, whether by best fit).
STARTS = (((0, True),), ((0, False),), tuple(itertools.product(range(1, 8), (True, False))))


@dataclasses.dataclass(frozen=True)
class Packed:
    """Steps in `rows` rows of `row_len` tokens. row: each sample's row, -1 where there is none. units: of the tower,
    the most in one shard of a micro-batch, over all steps."""

    rows: int
    row_len: int
    row: Int32[np.ndarray, "s n"]
    units: int


def pack(
    lengths: Int64[np.ndarray, "s n"],
    units: Int64[np.ndarray, "s n"],
    *,
    multiple: int,
    max_row_len: int,
    micro_rows: int,
    shards: int,
) -> Packed:
    """Pack all steps into rows of one shape: the one with the fewest computed tokens for which a packing was found.

    The number of rows is a multiple of `micro_rows` (0: the rows are one micro-batch) or of `shards`, their length of
    `multiple`, and at most `max_row_len` unless a sample is longer. Then rows are filled and numbered so that the units
    of the tower (tiles of pictures) are balanced over the shards, because every shard has room for the most that any of
    them gets.
    """
    lengths, shown = lengths.astype(np.int32), units.astype(np.int32)  # half the memory traffic
    turns, everything = np.argsort(-lengths.sum(1), kind="stable"), int(shown.sum(1).max())
    for rows, row_len in _candidates(lengths, micro_rows or shards, multiple, max_row_len):
        in_shard = (micro_rows or rows) // shards
        for most in _limits(shown, rows) if in_shard < rows else [everything]:
            if any(
                len(fit(lengths[turns[:n]], shown[turns[:n]], rows, row_len, everything)[1]) for n in (FIRST, PROBES)
            ):
                break
            row, failed = _fit_all(lengths, shown, turns, rows, row_len, most)
            if not len(failed):
                return Packed(rows, row_len, *spread(row, units, rows, in_shard))
            turns = np.concatenate([failed, turns[~np.isin(turns, failed)]])
    raise AssertionError("with a row for every sample, all of them fit")


def pad(
    lengths: Int64[np.ndarray, "s n"],
    units: Int64[np.ndarray, "s n"],
    *,
    multiple: int,
    micro_rows: int,
    shards: int,
) -> Packed:
    """One sample per row, in the order of the step; rows are as long as the longest sample of all steps, rounded up to
    `multiple`."""
    unit = micro_rows or shards
    rows = int(rounded_up(lengths.shape[1], unit))
    row = np.where(lengths > 0, np.arange(lengths.shape[1]), -1).astype(np.int32)
    counts = per_row(units, row, rows)
    return Packed(
        rows, int(rounded_up(lengths.max(), multiple)), row, _most_in_shard(counts, (micro_rows or rows) // shards)
    )


def spread(
    row: Int32[np.ndarray, "s n"], units: Int64[np.ndarray, "s n"], rows: int, in_shard: int
) -> tuple[Int32[np.ndarray, "s n"], int]:
    """(rows renumbered so that every shard of `in_shard` consecutive rows has about the same number of units, the most
    that one has)."""
    counts = per_row(units, row, rows)
    if in_shard not in (1, rows):
        most_first = np.argsort(-counts, axis=1, kind="stable")
        shard = order.deal(np.take_along_axis(counts, most_first, 1).astype(np.float64), rows // in_shard)
        numbered = np.take_along_axis(most_first, np.argsort(shard, axis=1, kind="stable"), 1)
        counts = np.take_along_axis(counts, numbered, 1)
        row = np.where(row < 0, -1, np.take_along_axis(np.argsort(numbered, axis=1), row, 1)).astype(np.int32)
    return row, _most_in_shard(counts, in_shard)


def rounded_up(values: Any, multiple: int) -> Any:
    """A number or array, rounded up to the next multiple."""
    return -(-values // multiple) * multiple


def levels(needs: Int64[np.ndarray, " s"], count: int) -> Int64[np.ndarray, " s"]:
    """Sort steps into at most `count` classes by their need, so that the total is least if every step gets the largest
    need of its class. Classes are numbered by rising need."""
    values, which, counts = np.unique(needs, return_inverse=True, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    least = np.where(before == 0, 0.0, np.inf)  # cost of the first i values, split into the classes so far
    cuts = []
    for _ in range(min(count, len(values))):
        cut = np.zeros(len(least), np.int64)
        cost = np.full(len(least), np.inf)
        for end in range(1, len(least)):
            costs = least[:end] + values[end - 1] * (before[end] - before[:end])
            cut[end] = costs.argmin()
            cost[end] = costs[cut[end]]
        least = cost
        cuts.append(cut)
    starts = [len(values)]
    for cut in reversed(cuts):
        starts.append(int(cut[starts[-1]]))
    return np.searchsorted(starts[:0:-1], which, side="right") - 1


def bounds(
    lengths: Int64[np.ndarray, "s n"], *, multiple: int, max_row_len: int, micro_rows: int, shards: int
) -> Int64[np.ndarray, " s"]:
    """A lower bound of each step's computed tokens, in rows of the greatest allowed length."""
    totals, longest = lengths.sum(1), lengths.max(1)
    widest = longest_row(int(longest.max()), multiple, max_row_len)
    least = np.full(len(lengths), np.iinfo(np.int64).max)
    for rows in row_counts(lengths.shape[1], micro_rows or shards):
        row_len = rounded_up(np.maximum(-(-totals // rows), longest), multiple)
        least = np.where(row_len <= widest, np.minimum(least, rows * row_len), least)
    return least


def fit(
    lengths: Int32[np.ndarray, "s n"], units: Int32[np.ndarray, "s n"], rows: int, row_len: int, most: int
) -> tuple[Int32[np.ndarray, "s n"], Int64[np.ndarray, " f"]]:
    """(row of every sample, in rows of at most `row_len` tokens and `most` units; steps without such rows, only the
    first of them if there are many).

    Best fit, longest sample first; a sample that fits no row overfills the emptiest one, and exchanging samples between
    rows repairs that. If that fails, the same from rows that are as even as possible: the first start does better with
    few samples per row, the second with many. Then both again with the samples in slightly different orders.

    On benchmarks/packing.py's data, best fit alone computes 1.118 tokens for each real one where this computes 1.080
    (1.127 and 1.090 on 8 and 16 shards; dealt evenly, on one, 1.049 and 1.010), in about 1 s against 1 to 7. On 64
    shards, at one row each, they are equal.
    """
    row, left = fit_most(lengths, units, rows, row_len, most)
    for at in range(0, len(left), step := CHUNK // len(STARTS[-1])):
        some = left[at : at + step]
        row[some], fits = _pack_from(STARTS[-1], lengths[some], units[some], rows, row_len, most)
        if not fits.all():
            return row, some[~fits]
    return row, left[:0]


def fit_most(
    lengths: Int32[np.ndarray, "s n"], units: Int32[np.ndarray, "s n"], rows: int, row_len: int, most: int
) -> tuple[Int32[np.ndarray, "s n"], Int64[np.ndarray, " f"]]:
    """As `fit` without the other orders, which seldom help: a step that fits may be missed, but all steps are tried,
    and all without rows are returned."""
    row, left = np.empty(lengths.shape, np.int32), np.arange(len(lengths))
    for starts in STARTS[:-1]:
        failed = []
        for at in range(0, len(left), CHUNK):
            some = left[at : at + CHUNK]
            row[some], fits = _pack_from(starts, lengths[some], units[some], rows, row_len, most)
            failed.append(some[~fits])
        left = np.concatenate([left[:0], *failed])
    return row, left


def _fit_all(
    lengths: Int32[np.ndarray, "s n"],
    units: Int32[np.ndarray, "s n"],
    turns: Int64[np.ndarray, " s"],
    rows: int,
    row_len: int,
    most: int,
) -> tuple[Int32[np.ndarray, "s n"], Int64[np.ndarray, " f"]]:
    """As `fit`, with the steps in the order `turns`; gives up if the first `PROBES` steps do not all fit."""
    row = np.empty(lengths.shape, np.int32)
    for part in (turns[:PROBES], turns[PROBES:]):
        row[part], failed = fit(lengths[part], units[part], rows, row_len, most)
        if len(failed):
            return row, part[failed]
    return row, failed


def _pack_from(
    starts: Sequence[tuple[int, bool]],
    lengths: Int32[np.ndarray, "s n"],
    units: Int32[np.ndarray, "s n"],
    rows: int,
    row_len: int,
    most: int,
) -> tuple[Int32[np.ndarray, "s n"], Bool[np.ndarray, " s"]]:
    """(rows of every step by the first of `starts` that succeeds, for which steps one did)."""
    steps, count = lengths.shape
    noise = np.stack([np.random.default_rng(turn).normal(0, NOISE * turn, count) for turn, _ in starts])
    lengths, units = np.repeat(lengths, len(starts), 0), np.repeat(units, len(starts), 0)
    turns = np.argsort(-lengths * np.tile(np.exp(noise), (steps, 1)), axis=1, kind="stable")
    best_fit = np.tile([fit for _, fit in starts], steps)
    row, fits = _exchange(
        lengths, units, _place(lengths, units, turns, rows, row_len, most, best_fit), rows, row_len, most
    )
    chosen = np.arange(steps) * len(starts) + fits.reshape(steps, -1).argmax(1)
    return row[chosen], fits[chosen]


def _place(
    lengths: Int32[np.ndarray, "s n"],
    units: Int32[np.ndarray, "s n"],
    turns: Int64[np.ndarray, "s n"],
    rows: int,
    row_len: int,
    most: int,
    best_fit: Bool[np.ndarray, " s"],
) -> Int32[np.ndarray, "s n"]:
    """Row of every sample, in the order `turns`: the fullest in which it fits, else (or without `best_fit`) the
    emptiest."""
    each, never = np.arange(len(lengths)), np.int32(2**30)
    room = np.full((len(lengths), rows), row_len, np.int32)
    unseen = np.full((len(lengths), rows), most, np.int32)
    row = np.full(lengths.shape, -1, np.int32)
    for turn in turns.T:
        length, shown = lengths[each, turn], units[each, turn]
        rank = np.where(best_fit[:, None] & (room >= length[:, None]), room, never // 2 - room)
        rank = np.where(unseen >= shown[:, None], rank, never)
        chosen = rank.argmin(1)
        row[each, turn] = np.where((length > 0) & (rank[each, chosen] < never), chosen, -1)
        room[each, chosen] -= length
        unseen[each, chosen] -= shown
    return row


def _exchange(
    lengths: Int32[np.ndarray, "s n"],
    units: Int32[np.ndarray, "s n"],
    row: Int32[np.ndarray, "s n"],
    rows: int,
    row_len: int,
    most: int,
) -> tuple[Int32[np.ndarray, "s n"], Bool[np.ndarray, " s"]]:
    """Exchange samples between rows until none is too full; returns for which steps that succeeded.

    Repeatedly, the fullest row of a step gives a sample to another row for a shorter one, or for none, so that the
    fuller of the two becomes as empty as one exchange can make it.
    """
    steps, count = lengths.shape
    # An extra empty sample in each row stands for none.
    size = np.concatenate([lengths, np.zeros((steps, rows), np.int32)], 1)
    shown = np.concatenate([units, np.zeros((steps, rows), np.int32)], 1)
    place = np.concatenate([row, np.broadcast_to(np.arange(rows, dtype=np.int32), (steps, rows))], 1)
    load, seen = per_row(size, place, rows), per_row(shown, place, rows)
    whole = ((row >= 0) | (lengths == 0)).all(1)
    live = np.flatnonzero(whole)
    for _ in range(EXCHANGES):
        live = live[load[live].max(1, initial=0) > row_len]
        if not len(live):
            break
        gives, takes, better = _best_exchange(size[live], shown[live], place[live], load[live], seen[live], most)
        live, gives, takes = live[better], gives[better], takes[better]
        full, other = place[live, gives], place[live, takes]
        for table, sums in ((size, load), (shown, seen)):
            more = table[live, gives] - table[live, takes]
            sums[live, full] -= more
            sums[live, other] += more
        place[live, gives], place[live, takes] = other, full
    return place[:, :count], whole & (load.max(1) <= row_len)


def _best_exchange(
    size: Int32[np.ndarray, "s m"],
    shown: Int32[np.ndarray, "s m"],
    place: Int32[np.ndarray, "s m"],
    load: Int32[np.ndarray, "s r"],
    seen: Int32[np.ndarray, "s r"],
    most: int,
) -> tuple[Int64[np.ndarray, " s"], Int64[np.ndarray, " s"], Bool[np.ndarray, " s"]]:
    """(sample that the fullest row of every step gives, sample that it takes, whether that improves the step)."""
    each, never = np.arange(len(size)), np.int32(2**30)
    full = load.argmax(1)
    inside = place == full[:, None]
    given = np.argsort(~inside, axis=1, kind="stable")[:, : int(inside.sum(1).max())]
    at = each[:, None]
    less = size[at, given][:, :, None] - size[:, None, :]
    fuller = np.maximum(load[each, full][:, None, None] - less, load[at, place][:, None, :] + less)
    fewer = shown[at, given][:, :, None] - shown[:, None, :]
    allowed = (less > 0) & inside[at, given][:, :, None] & (place >= 0)[:, None, :] & ~inside[:, None, :]
    allowed &= (seen[at, place][:, None, :] + fewer <= most) & (seen[each, full][:, None, None] - fewer <= most)
    ranks = np.where(allowed, fuller, never).reshape(len(size), -1)
    best = ranks.argmin(1)
    return given[each, best // size.shape[1]], best % size.shape[1], ranks[each, best] < load[each, full]


def per_row(values: Integer[np.ndarray, "s m"], row: Int32[np.ndarray, "s m"], rows: int) -> Int32[np.ndarray, "s r"]:
    """Sum of `values` in each row, without those in no row (-1)."""
    line, at = np.nonzero(row >= 0)
    sums = np.bincount(line * rows + row[line, at], weights=values[line, at], minlength=len(row) * rows)
    return sums.reshape(len(row), rows).astype(np.int32)


def most_in_shard(values: Int64[np.ndarray, "s n"], row: Int32[np.ndarray, "s n"], rows: int, in_shard: int) -> int:
    """The largest sum of `values` in a shard of `in_shard` consecutive rows, over all steps."""
    return _most_in_shard(per_row(values, row, rows), in_shard)


def _most_in_shard(counts: Integer[np.ndarray, "s r"], in_shard: int) -> int:
    return int(counts.reshape(len(counts), -1, in_shard).sum(2).max(initial=0))


def longest_row(longest: int, multiple: int, max_row_len: int) -> int:
    """The most tokens that a row may have."""
    return max(rounded_up(longest, multiple), max_row_len // multiple * multiple)


def row_counts(samples: int, unit: int) -> range:
    """Numbers of rows that a step may have."""
    return range(unit, rounded_up(samples, unit) + 1, unit)


def _candidates(
    lengths: Int32[np.ndarray, "s n"], unit: int, multiple: int, max_row_len: int
) -> Iterator[tuple[int, int]]:
    """(rows, row length) by rising computed tokens, from the least that the fullest step needs, so that the first that
    holds every step is the best. Of equals, shorter rows come first, as their attention costs less."""
    fullest, longest = int(lengths.sum(1).max()), int(lengths.max())
    shortest = rounded_up(longest, multiple)
    widest = longest_row(longest, multiple, max_row_len)
    found = []
    for rows in row_counts(lengths.shape[1], unit):
        row_len = max(shortest, rounded_up(-(-fullest // rows), multiple))
        found.append((rows * row_len, row_len, rows))
    heapq.heapify(found)
    while found:
        _, row_len, rows = heapq.heappop(found)
        if row_len <= widest:
            yield rows, row_len
            heapq.heappush(found, (rows * (row_len + multiple), row_len + multiple, rows))


def _limits(units: Int32[np.ndarray, "s n"], rows: int) -> list[int]:
    """Candidate limits on the units of a row, from the least possible to no limit."""
    most = int(units.sum(1).max())
    least = max(-(-most // rows), int(units.max()))
    return [least, *itertools.takewhile(lambda limit: limit < most, (least + 2**power for power in range(30))), most]
