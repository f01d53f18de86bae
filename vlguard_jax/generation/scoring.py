"""Texts after a prompt, one a row, whose tokens are scored."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from jaxtyping import Int32
import numpy as np

from vlguard_jax.generation import prompts as prompts_lib


@dataclasses.dataclass(frozen=True)
class Text:
    """A continuation, and the prompt with all of it but its last token. number: its place among the others."""

    number: int
    asked: prompts_lib.Asked
    continuation: Int32[np.ndarray, " c"]

    @property
    def places(self) -> slice:
        """The tokens of the rest after which those of the continuation come."""
        end = len(self.asked.tokens) - self.asked.prefix
        return slice(end - len(self.continuation), end)


def text(asked: prompts_lib.Asked, number: int, continuation: Int32[np.ndarray, " c"]) -> Text:
    """A continuation of a prompt, of at least one token."""
    more = np.arange(len(continuation) - 1, dtype=np.int32) + asked.follows
    more = more if asked.positions.ndim == 1 else np.repeat(more[:, None], asked.positions.shape[1], axis=1)
    longer = dataclasses.replace(
        asked,
        tokens=np.concatenate([asked.tokens, continuation[:-1]]),
        positions=np.concatenate([asked.positions, more]),
        slot=np.concatenate([asked.slot, np.full(len(more), -1, np.int32)]),
    )
    return Text(number, longer, continuation)


def dealt(texts: Sequence[Text], shards: int) -> list[list[Text]]:
    """Texts to row shards, in turn."""
    return [list(texts[shard::shards]) for shard in range(shards)]


def targets(shards: Sequence[Sequence[Text]], each: int) -> Int32[np.ndarray, "R C"]:
    """The token that is scored at each place of the rests, in `each` rows of every shard; 0 elsewhere."""
    size = next(one.asked.shape.rest for shard in shards for one in shard)
    wanted = np.zeros((len(shards) * each, size), np.int32)
    for shard, given in enumerate(shards):
        for row, one in enumerate(given):
            wanted[shard * each + row, one.places] = one.continuation
    return wanted
