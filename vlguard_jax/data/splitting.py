"""Splits a run's steps into classes with their own shapes, for families whose pictures take slots by their size.

Where all pictures take the same, a step's number of tokens tells well enough which shape it needs (data/packing.py,
`levels`). Large pictures make long conversations of a few lengths, so that a row holds two or three; the shape that
holds most steps is then found by trying. And the units of a shard (tiles, patches) come in lumps of a picture, so they
are balanced by exchanging samples, not rows.

On the pictures that benchmarks/packing.py draws for LLaVA-NeXT, in random order on 8 shards, one shape for all with its
rows dealt to the shards computes 1.140 tokens and 1.160 tiles for each real one; two classes 1.044 and 1.091.

Arrays [s, n] are as in data/packing.py. Nothing here is random.
"""

from __future__ import annotations

import dataclasses
import heapq

from jaxtyping import Bool, Int32, Int64
import numpy as np

from vlguard_jax.data import packing

SAMPLE = 256  # steps that a shape is tried on
FIRST = 8  # every FIRST-th of these is tried first; a shape that does badly on them is dropped
TOWER = 1 / 32  # the tower's share of a step's compute, relative to the decoder's: about as in LLaVA-NeXT 7B
LUMPS = 0.95  # share of the steps whose units are balanced as far as possible; no room is planned for a smaller share
WORTH = 0.01  # share of a class's computed tokens that splitting it must save, as each shape is a compilation
CHUNK = 256  # steps that are balanced at once, to bound memory


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The arguments of `packing.pack`."""

    multiple: int
    max_row_len: int
    micro_rows: int
    shards: int

    def in_shard(self, rows: int) -> int:
        """Rows of a shard of a micro-batch."""
        return (self.micro_rows or rows) // self.shards


@dataclasses.dataclass(frozen=True, eq=False)
class _Class:
    """Steps that share a shape, or fit a smaller one. packed: their packing, None before it is known. final: whether no
    smaller shape is worthwhile for some of them."""

    steps: Int64[np.ndarray, " m"]
    rows: int
    row_len: int
    packed: packing.Packed | None = None
    final: bool = False

    @property
    def computed(self) -> int:
        """Tokens of a step."""
        return self.rows * self.row_len


def classes(
    lengths: Int64[np.ndarray, "s n"], units: Int64[np.ndarray, "s n"], count: int, sizes: Sizes
) -> list[tuple[Int64[np.ndarray, " m"], packing.Packed]]:
    """At most `count` classes of steps, from the smallest shape to the largest, with their packings.

    Repeatedly, the class with most padding is split in two: steps that fit a smaller shape, and the rest.
    """
    totals = lengths.sum(1)
    fullest = np.argsort(-totals, kind="stable")[: packing.PROBES]
    largest = packing.pack(lengths[fullest], units[fullest], **dataclasses.asdict(sizes))
    found = [_Class(np.arange(len(lengths)), largest.rows, largest.row_len)]
    while len(found) < count and (left := [one for one in found if not one.final]):
        padded = max(left, key=lambda one: len(one.steps) * one.computed - int(totals[one.steps].sum()))
        found.remove(padded)
        found += _split(lengths, units, padded, sizes)
    found.sort(key=lambda one: one.computed)
    return [(one.steps, one.packed or _packed(lengths[one.steps], units[one.steps], sizes)) for one in found]


def even(
    lengths: Int64[np.ndarray, "s n"],
    units: Int64[np.ndarray, "s n"],
    packed: packing.Packed,
    in_shard: int,
    enough: int,
) -> tuple[Int32[np.ndarray, "s n"], Int64[np.ndarray, " s"]]:
    """Exchange samples between shards, without overfilling rows, in steps with a shard of more units than `enough`;
    also returns the most units that a shard of each step is left with.

    Repeatedly, the fullest shard of a step gives a sample for one with fewer units, or for none, so that the fuller of
    the two shards becomes as empty as one exchange can make it.
    """
    row, most = packed.row.copy(), np.empty(len(lengths), np.int64)
    for at in range(0, len(lengths), CHUNK):
        some = slice(at, at + CHUNK)
        size, shown = lengths[some].astype(np.int32), units[some].astype(np.int32)
        row[some], most[some] = _even(size, shown, row[some], packed, in_shard, enough)
    return row, most


def _packed(lengths: Int64[np.ndarray, "s n"], units: Int64[np.ndarray, "s n"], sizes: Sizes) -> packing.Packed:
    """All steps in one shape."""
    packed = packing.pack(lengths, units, **dataclasses.asdict(sizes))
    in_shard = sizes.in_shard(packed.rows)
    enough = int(_least(units, packed.rows // in_shard).max())
    row, most = even(lengths, units, packed, in_shard, enough)
    return dataclasses.replace(packed, row=row, units=int(most.max()))


def _split(
    lengths: Int64[np.ndarray, "s n"], units: Int64[np.ndarray, "s n"], whole: _Class, sizes: Sizes
) -> list[_Class]:
    """(the steps that fit the most worthwhile smaller shape, the others)."""
    size, shown = lengths[whole.steps], units[whole.steps]
    rows, row_len = _smaller(size, whole, sizes)
    if rows * row_len == whole.computed:
        return [dataclasses.replace(whole, final=True)]
    row, fits = _fit(size, rows, row_len)
    size, shown, in_shard = size[fits], shown[fits], sizes.in_shard(rows)
    enough = int(np.quantile(_least(shown, rows // in_shard), LUMPS))
    packed = packing.Packed(rows, row_len, *packing.spread(row, shown, rows, in_shard))
    row, most = even(size, shown, packed, in_shard, enough)
    price = TOWER * lengths.sum() / units.sum() * (rows // in_shard)  # of room for a unit in every shard, in tokens
    limit = _limit(most, len(whole.steps), price, whole.computed - rows * row_len)
    lower = most <= limit
    smaller = _Class(whole.steps[fits[lower]], rows, row_len, packing.Packed(rows, row_len, row[lower], limit))
    others = np.setdiff1d(np.arange(len(whole.steps)), fits[lower])
    if not len(others):
        return [smaller]
    rest = dataclasses.replace(whole, steps=whole.steps[others])
    if whole.packed:
        row = whole.packed.row[others]
        room = packing.most_in_shard(units[rest.steps], row, whole.rows, sizes.in_shard(whole.rows))
        rest = dataclasses.replace(rest, packed=packing.Packed(whole.rows, whole.row_len, row, room))
    return [smaller, rest]


def _limit(most: Int64[np.ndarray, " f"], steps: int, price: float, apart: int) -> int:
    """Units that a shard gets room for, so that the total cost of all `steps` is least: a step whose `most` exceeds it
    goes into the larger shape, for `apart` more tokens, and the others save the `price` of each unit."""
    room, held = np.unique(most, return_counts=True)
    kept = np.cumsum(held)
    return int(room[(kept * price * room + (steps - kept) * (apart + price * room[-1])).argmin()])


def _smaller(lengths: Int64[np.ndarray, "s n"], whole: _Class, sizes: Sizes) -> tuple[int, int]:
    """(rows, row length) for the fewest computed tokens if the steps that fit them take them and the others keep the
    shape of `whole`; that shape if no other is worthwhile."""
    lengths = lengths[np.linspace(0, len(lengths) - 1, min(SAMPLE, len(lengths))).astype(np.int64)]
    parts = [np.flatnonzero((np.arange(len(lengths)) % FIRST == 0) == first) for first in (True, False)]
    totals, longest, multiple = lengths.sum(1), lengths.max(1), sizes.multiple
    widest = packing.longest_row(int(longest.max()), multiple, sizes.max_row_len)

    def cost(fits: Bool[np.ndarray, " s"], rows: int, row_len: int) -> float:
        return float(np.where(fits, rows * row_len, whole.computed).mean())

    found = []
    for rows in packing.row_counts(lengths.shape[1], sizes.micro_rows or sizes.shards):
        shortest = packing.rounded_up(max(1, -(-int(totals.min()) // rows), int(longest.min())), multiple)
        for row_len in range(shortest, min(widest, (whole.computed - 1) // rows) + 1, multiple):
            found.append((cost(_may(lengths, rows, row_len), rows, row_len), row_len, rows))
    heapq.heapify(found)
    best = ((1 - WORTH) * whole.computed, whole.rows, whole.row_len)
    while found and found[0][0] < best[0]:
        _, row_len, rows = heapq.heappop(found)
        fits = _may(lengths, rows, row_len)
        for part in parts:
            fits[part] = False
            fits[part[_fit(lengths[part], rows, row_len)[1]]] = True
            if cost(fits, rows, row_len) >= best[0]:
                break
        else:
            best = (cost(fits, rows, row_len), rows, row_len)
    return best[1:]


def _fit(
    lengths: Int64[np.ndarray, "s n"], rows: int, row_len: int
) -> tuple[Int32[np.ndarray, "m n"], Int64[np.ndarray, " m"]]:
    """(steps that fit such rows, row of each of their samples)."""
    may = np.flatnonzero(_may(lengths, rows, row_len))
    size = lengths[may].astype(np.int32)
    row, failed = packing.fit_most(size, np.zeros_like(size), rows, row_len, 0)
    fits = np.setdiff1d(np.arange(len(may)), failed)
    return row[fits], may[fits]


def _may(lengths: Int64[np.ndarray, "s n"], rows: int, row_len: int) -> Bool[np.ndarray, " s"]:
    return (lengths.sum(1) <= rows * row_len) & (lengths.max(1) <= row_len)


def _even(
    lengths: Int32[np.ndarray, "s n"],
    units: Int32[np.ndarray, "s n"],
    row: Int32[np.ndarray, "s n"],
    packed: packing.Packed,
    in_shard: int,
    enough: int,
) -> tuple[Int32[np.ndarray, "s n"], Int32[np.ndarray, " s"]]:
    (steps, count), rows = lengths.shape, packed.rows
    # An extra empty sample in each row stands for none.
    size = np.concatenate([lengths, np.zeros((steps, rows), np.int32)], 1)
    shown = np.concatenate([units, np.zeros((steps, rows), np.int32)], 1)
    place = np.concatenate([row, np.broadcast_to(np.arange(rows, dtype=np.int32), (steps, rows))], 1)
    load = packing.per_row(size, place, rows)
    seen = packing.per_row(shown, np.where(place < 0, -1, place // in_shard), rows // in_shard)
    live = np.arange(steps) if in_shard < rows else np.arange(0)
    while len(live := live[seen[live].max(1) > enough]):
        gives, takes, better = _best_exchange(
            size[live], shown[live], place[live], load[live], seen[live], packed.row_len, in_shard
        )
        live, gives, takes = live[better], gives[better], takes[better]
        full, other = place[live, gives], place[live, takes]
        for table, sums, at, to in (
            (size, load, full, other),
            (shown, seen, full // in_shard, other // in_shard),
        ):
            more = table[live, gives] - table[live, takes]
            sums[live, at] -= more
            sums[live, to] += more
        place[live, gives], place[live, takes] = other, full
    return place[:, :count], seen.max(1)


def _best_exchange(
    size: Int32[np.ndarray, "s m"],
    shown: Int32[np.ndarray, "s m"],
    place: Int32[np.ndarray, "s m"],
    load: Int32[np.ndarray, "s r"],
    seen: Int32[np.ndarray, "s g"],
    row_len: int,
    in_shard: int,
) -> tuple[Int64[np.ndarray, " s"], Int64[np.ndarray, " s"], Bool[np.ndarray, " s"]]:
    """(sample that the fullest shard of every step gives, sample that it takes, whether that improves the step)."""
    each, never = np.arange(len(size)), np.int32(2**30)
    at, shard, full = each[:, None], place // in_shard, seen.argmax(1)
    inside = (shard == full[:, None]) & (shown > 0)
    given = np.argsort(~inside, axis=1, kind="stable")[:, : int(inside.sum(1).max())]
    fewer = shown[at, given][:, :, None] - shown[:, None, :]
    less = size[at, given][:, :, None] - size[:, None, :]
    allowed = (fewer > 0) & inside[at, given][:, :, None] & ((place >= 0) & (shard != full[:, None]))[:, None, :]
    allowed &= load[at, place][:, None, :] + less <= row_len
    allowed &= load[at, place[at, given]][:, :, None] - less <= row_len
    fuller = np.maximum(seen[each, full][:, None, None] - fewer, seen[at, shard][:, None, :] + fewer)
    ranks = np.where(allowed, fuller, never).reshape(len(size), -1)
    best = ranks.argmin(1)
    return given[each, best // size.shape[1]], best % size.shape[1], ranks[each, best] < seen[each, full]


def _least(units: Int64[np.ndarray, "s n"], groups: int) -> Int64[np.ndarray, " s"]:
    """A lower bound of the units in the fullest shard of each step."""
    return np.maximum(-(-units.sum(1) // groups), units.max(1))
