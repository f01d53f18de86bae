"""What prompts share is read once: which picture's features and which prefixes are on the device, and where.

Both are found by their content. Room is limited in bytes; what was not used for longest makes way. Nothing depends on
what is found: a prefix is read from its row by the program that admits the prompt, however long it has been there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.generation import lengths
from vlguard_jax.generation import memory
from vlguard_jax.generation import prefixes
from vlguard_jax.generation import program as program_lib
from vlguard_jax.generation import prompts as prompts_lib
from vlguard_jax.parallel import mesh as mesh_lib

FEATURES = 0.1  # share of the memory that is for features, which are small beside a prefix
Dealt = Sequence[Sequence[tuple[int, prompts_lib.Asked]]]  # (slot, prompt) of every row shard


def rows(limit: float, size: int, most: int) -> int:
    """Prefixes that a row shard keeps: as many as fit, of `size` bytes on a device; at least one."""
    return max(1, min(int((1 - FEATURES) * limit // size), most))


def features(limit: float, width: int, needed: int, most: int) -> int:
    """Rows of features that a row shard keeps, of `width` bytes: at least twice as many as are needed at a time."""
    return max(2 * needed, min(int(FEATURES * limit // width), most))


class Entries:
    """Rows of one row shard, found by key; the one not used for longest makes way."""

    def __init__(self, count: int):
        self._rows: dict[bytes, int] = {}  # the last used at the end
        self._free = list(range(count))

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def use(self, key: bytes) -> int:
        """Its row, which is now the last used."""
        self._rows[key] = self._rows.pop(key)
        return self._rows[key]

    def place(self, key: bytes, needed: Collection[bytes]) -> int:
        """A row for a new key; those of `needed` keep theirs."""
        if not self._free:
            self._free.append(self._rows.pop(next(old for old in self._rows if old not in needed)))
        self._rows[key] = self._free.pop(0)
        return self._rows[key]


class Ring:
    """Stretches of the rows of one row shard, found by key, laid one after another; a new one takes the place of the
    oldest."""

    def __init__(self, size: int):
        self.size = size
        self._next = 0
        self._found: dict[bytes, tuple[int, int]] = {}

    def place(self, wanted: dict[bytes, int]) -> tuple[dict[bytes, int], list[bytes]]:
        """(first row of each of these keys, those that are new). wanted: rows of each; half of the ring at most."""
        new = [key for key in wanted if key not in self._found]
        taken, end = self._stretches([(key, wanted[key]) for key in new])
        used = [self._found[key] for key in wanted if key in self._found]
        if any(a < d and c < b for a, b in used for c, d in taken.values()):  # a new one would lie on one in use
            new = list(wanted)
            taken, end = self._stretches(list(wanted.items()))
        self._next = end
        self._found = {
            key: own
            for key, own in self._found.items()
            if key not in taken and not any(own[0] < d and c < own[1] for c, d in taken.values())
        } | taken
        return {key: self._found[key][0] for key in wanted}, new

    def _stretches(self, wanted: Sequence[tuple[bytes, int]]) -> tuple[dict[bytes, tuple[int, int]], int]:
        end, found = self._next, {}
        for key, rows in wanted:
            start = end if end + rows <= self.size else 0
            end = start + rows
            found[key] = (start, end)
        return found, end


@dataclasses.dataclass(frozen=True)
class Counts:
    """Work so far. pictures, prefixes: that were read; found: prefixes that were there."""

    pictures: int = 0
    prefixes: int = 0
    found: int = 0


class Reuse:
    """What is kept on the devices of a mesh. each: slots of a row shard as the settings say; limit: bytes on a
    device."""

    def __init__(self, program: program_lib.Program, each: int, most: int, limit: float):
        self._program, self._each, self._most, self._limit = program, each, most, limit
        self._shards = mesh_lib.row_shards(program.mesh)
        self.counts = Counts()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.kept: prefixes.Kept | None = None
        self._length = 0
        self._entries: list[Entries] = []
        self._rings: list[Ring] = []

    def rows(self, shape: prompts_lib.Shape) -> int:
        """Prefixes of this shape that each row shard keeps."""
        return rows(self._limit, self.size(lengths.room(shape.prefix)), self._most)

    def most(self, shapes: Collection[prompts_lib.Shape]) -> int:
        """Bytes on a device that prompts of these shapes take, one shape after another."""
        found = {shape for shape in shapes if shape.prefix}
        kept = max((self.rows(shape) * self.size(lengths.room(shape.prefix)) for shape in found), default=0)
        return kept + int(FEATURES * self._limit if found else 0)

    def size(self, length: int) -> int:
        """Bytes on a device of one prefix of this many places."""
        tensor = self._program.mesh.shape["tensor"]
        return length * memory.of_token(self._program.config.text, self._program.kv_bytes, tensor)

    def holds(self, shard: int, one: prompts_lib.Asked) -> bool:
        """Whether the shard has the prompt's prefix."""
        return self._length == lengths.room(one.shape.prefix) and one.key in self._entries[shard]

    def ready(self, params: Any, dealt: Dealt) -> list[list[prompts_lib.Placed]]:
        """Have the prefixes of prompts of one shape on the device. Of each row shard no more different ones than
        `rows` says."""
        try:
            return self._ready(params, dealt)
        except BaseException:  # rows have been promised that were not read
            self.clear()
            raise

    def _ready(self, params: Any, dealt: Dealt) -> list[list[prompts_lib.Placed]]:
        shape = next(one.shape for shard in dealt for _, one in shard)
        if not shape.prefix:
            return [[prompts_lib.Placed(one, 0, slot, None) for slot, one in shard] for shard in dealt]
        self._fit(shape)
        missing = [self._missing(shard, [one for _, one in given]) for shard, given in enumerate(dealt)]
        together = lengths.group(lengths.slots(self._each, shape.prefix), shape.prefix)
        for first in range(0, max(map(len, missing)), together):
            self._keep(params, [shard[first : first + together] for shard in missing], together)
        late = [[one for _, one in shard if one.looks_back] for shard in dealt]
        features = self._see(params, late) if any(late) else [{} for _ in dealt]
        return [
            [
                prompts_lib.Placed(one, self._entries[shard].use(one.key), slot, of_shard.get(id(one)))
                for slot, one in given
            ]
            for shard, (given, of_shard) in enumerate(zip(dealt, features, strict=True))
        ]

    def _fit(self, shape: prompts_lib.Shape) -> None:
        """Have rows of the shape's length; those of another one are given up."""
        length = lengths.room(shape.prefix)
        if self._length == length:
            return
        features, count = (self.kept.features if self.kept else None), self.rows(shape)
        self.kept = None  # its memory is free before the next one's is taken
        made = self._program.nothing(self._shards, self._shards * count, length)
        self.kept = made if features is None else made._replace(features=features)
        self._length, self._entries = length, [Entries(count) for _ in range(self._shards)]
        self._rings = self._rings or [Ring(1) for _ in range(self._shards)]

    def _missing(self, shard: int, given: Sequence[prompts_lib.Asked]) -> list[prompts_lib.Placed]:
        """Prompts whose prefixes are to be read, one for each, with the rows for them."""
        entries, needed, found = self._entries[shard], {one.key for one in given}, []
        for one in given:  # in this order, not a set's: every process of a mesh must make the same row free
            if one.key in entries:
                entries.use(one.key)
        for one in given:
            if one.key not in entries:
                found.append(prompts_lib.Placed(one, entries.place(one.key, needed), 0, None))
        read = len(found)
        self.counts = dataclasses.replace(
            self.counts, prefixes=self.counts.prefixes + read, found=self.counts.found + len(given) - read
        )
        return found

    def _keep(self, params: Any, missing: Sequence[Sequence[prompts_lib.Placed]], together: int) -> None:
        features = self._see(params, [[one.asked for one in shard] for shard in missing])
        placed = [
            [one._replace(features=of_shard[id(one.asked)]) for one in shard]
            for shard, of_shard in zip(missing, features, strict=True)
        ]
        rows = prompts_lib.to_keep(placed, together, beyond=np.iinfo(np.int32).max)
        self.kept = self._program.keep(params, self.kept, self._put(rows))

    def _see(self, params: Any, asked: Sequence[Sequence[prompts_lib.Asked]]) -> list[dict[int, np.ndarray]]:
        """Have the features of the prompts' pictures on the device; for each prompt, the row of each of its tokens,
        counted over all shards."""
        wanted = [{shown.key: shown for one in shard for shown in one.shown} for shard in asked]
        self._widen(max(sum(shown.room.slots for shown in shard.values()) for shard in wanted))
        places, todo = [], []
        for ring, shard in zip(self._rings, wanted, strict=True):
            first, new = ring.place({key: shown.room.slots for key, shown in shard.items()})
            places.append(first)
            todo.append([(first[key], shard[key]) for key in new])
        for room in sorted({shown.room for shard in todo for _, shown in shard}):
            of_room = [[one for one in shard if one[1].room == room] for shard in todo]
            for i in range(max(map(len, of_room))):
                self._show(params, room, [shard[i : i + 1] for shard in of_room])
        return [
            {id(one): self._of_tokens(one, shard, places[shard]) for one in given} for shard, given in enumerate(asked)
        ]

    def _show(self, params: Any, room: family.Room, shards: Sequence[Sequence[tuple[int, prompts_lib.Shown]]]) -> None:
        """Read at most one picture of each row shard."""
        assert self.kept is not None
        config, beyond = self._program.config, np.iinfo(np.int32).max
        pooled = [batches.pooled(config, [shown.picture for _, shown in shard], room) for shard in shards]
        pictures = {name: np.concatenate([one[name] for one in pooled]) for name in pooled[0]}
        where = [np.arange(room.slots) + shard[0][0] if shard else np.full(room.slots, beyond) for shard in shards]
        rows = np.concatenate(where).astype(np.int32)
        found = self._program.see(params, self.kept.features, *self._put((pictures, rows)))
        self.kept = self.kept._replace(features=found)
        read = sum(map(len, shards))
        self.counts = dataclasses.replace(self.counts, pictures=self.counts.pictures + read)

    def _widen(self, needed: int) -> None:
        """Have a ring of at least twice as many rows."""
        if self._rings[0].size >= 2 * needed:
            return
        assert self.kept is not None
        width = self.kept.features.shape[1] * self.kept.features.dtype.itemsize
        size = features(self._limit, width, needed, self._most * needed)
        self.kept = self.kept._replace(features=self._program.nothing(self._shards * size, self._shards, 1).features)
        self._rings = [Ring(size) for _ in range(self._shards)]

    def _of_tokens(self, one: prompts_lib.Asked, shard: int, places: dict[bytes, int]) -> np.ndarray:
        start, rows = 0, one.slot.copy()
        for shown in one.shown:
            own = (one.slot >= start) & (one.slot < start + shown.room.slots)
            rows[own] += np.int32(places[shown.key] - start + shard * self._rings[shard].size)
            start += shown.room.slots
        return rows

    def _put(self, tree: Any) -> Any:
        place = mesh_lib.row_sharding(self._program.mesh)
        return jax.tree.map(lambda x: mesh_lib.put(x, place), tree)
