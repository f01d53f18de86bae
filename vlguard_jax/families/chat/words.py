"""Sentencepiece word by word, with a cache: the same ids as for the whole text, several times as fast.

If no piece of a BPE model has a space after another character, no merge crosses the start of a space, so each run of
spaces with the following word can be tokenized separately; and words repeat. `separable` tells if a model is like that
(Llama's is).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
import itertools
import re
from typing import Any, TypeVar

SPACE_PIECE = "\u2581"  # sentencepiece's visible space
REMEMBERED = 1 << 17  # words; then the cache is cleared, which bounds its memory

_WORD = re.compile(f"[ {SPACE_PIECE}]*[^ {SPACE_PIECE}]+|[ {SPACE_PIECE}]+")


def separable(spec: Any) -> bool:
    """Whether a sentencepiece model (a protobuf ModelProto) tokenizes words independently of each other."""
    normal, trained = spec.normalizer_spec, spec.trainer_spec
    plain = not normal.precompiled_charsmap and not normal.remove_extra_whitespaces and normal.escape_whitespaces
    words = trained.model_type == trained.BPE and not trained.treat_whitespace_as_suffix
    pieces = {piece.piece for piece in spec.pieces}
    inside = any(SPACE_PIECE in piece.lstrip(SPACE_PIECE) or " " in piece for piece in pieces)
    return plain and words and not inside and SPACE_PIECE in pieces


_Made = TypeVar("_Made")


class Memory(dict[str, _Made]):
    """What `encode` makes of every word so far."""

    def __init__(self, encode: Callable[[str], _Made]):
        super().__init__()
        self._encode = encode

    def __missing__(self, word: str) -> _Made:
        if len(self) >= REMEMBERED:
            self.clear()
        made = self[word] = self._encode(word)
        return made


def at_borders(offsets: Sequence[tuple[int, int]], borders: Sequence[int]) -> list[tuple[int, int]]:
    """For each place between characters: (tokens that begin before it, how many of these, the last ones, end behind
    it). offsets: the characters of each token, in order."""
    starts = [first for first, _ in offsets]
    found = []
    for border in borders:
        before = bisect.bisect_left(starts, border)
        behind = itertools.takewhile(lambda i: offsets[i][1] > border, reversed(range(before)))  # noqa: B023
        found.append((before, len(list(behind))))
    return found


class WordEncoder:
    """Applies `encode` to each word once."""

    def __init__(self, encode: Callable[[str], list[int]]):
        self._any = Memory(encode)
        self._behind_a_space = Memory(lambda word: encode(f" {word}"))

    def __call__(self, text: str) -> list[int]:
        """Ids of `text`: those of its words, concatenated."""
        if SPACE_PIECE in text or "  " in text:
            return list(itertools.chain.from_iterable(map(self._any.__getitem__, _WORD.findall(text))))
        first, *rest = text.removesuffix(" ").split(" ")  # the fast path for single spaces
        ids = [*self._any[first]] if first else []
        ids += itertools.chain.from_iterable(map(self._behind_a_space.__getitem__, rest))
        return ids + self._any[" "] if text.endswith(" ") else ids
