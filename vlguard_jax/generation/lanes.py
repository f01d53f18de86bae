"""Slots with a cache of one length, and who gets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from vlguard_jax.generation import lengths
from vlguard_jax.generation import prompts as prompts_lib
from vlguard_jax.generation import slots as slots_lib

Dealt = list[list[tuple[int, prompts_lib.Asked]]]  # (slot in the shard, prompt) of every row shard


@dataclasses.dataclass
class Lane:
    """`asked[i]`: whose answer slot i makes. length: of the cache for a prompt, without its answer. shards: of rows."""

    length: int
    shards: int
    asked: list[prompts_lib.Asked | None]
    slots: slots_lib.Slots

    def __post_init__(self) -> None:
        self.full = self.each  # slots of a row shard at first

    @property
    def each(self) -> int:
        """Slots of a row shard."""
        return len(self.asked) // self.shards

    def live(self) -> bool:
        """Whether an answer is being made."""
        return any(self.asked)

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return not all(self.asked)

    def deal(
        self,
        waiting: Sequence[prompts_lib.Asked],
        each: int,
        most: int,
        holds: Callable[[int, prompts_lib.Asked], bool],
    ) -> Dealt:
        """Prompts of one shape for free slots, in their order: at most `each` for a row shard, with at most `most`
        different prefixes; to a shard that holds the prefix, or gets it now, else to the emptiest."""
        free = [[i for i in range(self.each) if not self.asked[shard * self.each + i]] for shard in range(self.shards)]
        dealt: Dealt = [[] for _ in free]
        keys: list[set[bytes]] = [set() for _ in free]
        for one in waiting:
            able = [
                shard
                for shard, slots in enumerate(free)
                if len(dealt[shard]) < min(each, len(slots)) and (one.key in keys[shard] or len(keys[shard]) < most)
            ]
            if not able:
                break
            there = [shard for shard in able if one.key and (one.key in keys[shard] or holds(shard, one))]
            shard = min(there or able, key=lambda shard: (len(dealt[shard]) - len(free[shard]) * (not there), shard))
            dealt[shard].append((free[shard][len(dealt[shard])], one))
            keys[shard].add(one.key)
        return dealt

    def fill(self, dealt: Dealt) -> None:
        """Note who has which slot."""
        for shard, given in enumerate(dealt):
            for slot, one in given:
                self.asked[shard * self.each + slot] = one

    def refitted(self, waits: bool) -> list[list[int]] | None:
        """The slots of each row shard that go on, filled up with new ones (`each`, beyond the last) to as many as there
        were at first if prompts wait, else to `lengths.fewer`; None if there are as many."""
        shards = [range(shard * self.each, (shard + 1) * self.each) for shard in range(self.shards)]
        live = [[i - own[0] for i in own if self.asked[i]] for own in shards]
        count = self.full if waits else lengths.fewer(self.each, max(map(len, live)))
        if count == self.each:
            return None
        return [[*own, *[self.each] * (count - len(own))] for own in live]

    def refit(self, which: Sequence[Sequence[int]], slots: slots_lib.Slots) -> None:
        """Go on with these slots of each row shard."""
        before = [[*self.asked[shard * self.each : (shard + 1) * self.each], None] for shard in range(self.shards)]
        self.asked = [asked[i] for asked, own in zip(before, which, strict=True) for i in own]
        self.slots = slots
