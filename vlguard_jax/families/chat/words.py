"""Sentencepiece word by word, with a memory: the same ids as for the whole text, several times as fast.

In a BPE model no piece of which holds a space behind another character, no merge can cross the place where a space
begins, so each run of spaces with the word behind it is tokenized by itself; and words repeat. `separable` says whether
a model is like that (Llama's is).
"""

from __future__ import annotations

from collections.abc import Callable
import itertools
import re
from typing import Any

SPACE_PIECE = "\u2581"  # sentencepiece's visible space
REMEMBERED = 1 << 17  # words; then all are forgotten, which bounds the memory

_WORD = re.compile(f"[ {SPACE_PIECE}]*[^ {SPACE_PIECE}]+|[ {SPACE_PIECE}]+")


def separable(spec: Any) -> bool:
    """Whether a sentencepiece model (a protobuf ModelProto) tokenizes words independently of each other."""
    normal, trained = spec.normalizer_spec, spec.trainer_spec
    plain = not normal.precompiled_charsmap and not normal.remove_extra_whitespaces and normal.escape_whitespaces
    words = trained.model_type == trained.BPE and not trained.treat_whitespace_as_suffix
    pieces = {piece.piece for piece in spec.pieces}
    inside = any(SPACE_PIECE in piece.lstrip(SPACE_PIECE) or " " in piece for piece in pieces)
    return plain and words and not inside and SPACE_PIECE in pieces


class _Memory(dict[str, list[int]]):
    """The ids of every word that was asked for."""

    def __init__(self, encode: Callable[[str], list[int]]):
        super().__init__()
        self._encode = encode

    def __missing__(self, word: str) -> list[int]:
        if len(self) >= REMEMBERED:
            self.clear()
        ids = self[word] = self._encode(word)
        return ids


class WordEncoder:
    """`encode` is applied to each word of a text once."""

    def __init__(self, encode: Callable[[str], list[int]]):
        self._any = _Memory(encode)
        self._behind_a_space = _Memory(lambda word: encode(f" {word}"))

    def __call__(self, text: str) -> list[int]:
        """Ids of `text`: those of its words, one after the other."""
        if SPACE_PIECE in text or "  " in text:
            return list(itertools.chain.from_iterable(map(self._any.__getitem__, _WORD.findall(text))))
        first, *rest = text.removesuffix(" ").split(" ")  # the quick way for single spaces
        ids = [*self._any[first]] if first else []
        ids += itertools.chain.from_iterable(map(self._behind_a_space.__getitem__, rest))
        return ids + self._any[" "] if text.endswith(" ") else ids
