"""The `tokenizers` library word by word, with a cache: the same ids as for the whole text, several times as fast.

A text may be cut in front of a single space between two characters that are no whitespace, if nothing reaches across:
no match of the pattern that splits the text (a space only begins a match of those listed here), no composed character
(nothing composes with a space) and, where spaces are written as pieces, no piece (few have one after another character,
and there is no cut after that character).
Added tokens are found first, as the library does, if none of them swallows spaces or asks for its neighbours.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
import itertools
import re
from typing import Any

import tokenizers

from vlguard_jax.families.chat import json_kind
from vlguard_jax.families.chat import words

_MOST = 100  # characters that end words
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_MARKS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_REST_OF_CASED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = frozenset(
    {
        f"{_MARKS}|{_LETTERS}|\\p{{N}}{{1,3}}|{_REST}",  # Llama-3
        f"{_MARKS}|{_LETTERS}|\\p{{N}}|{_REST}",  # Qwen2
        "|".join((*_CASED, r"\p{N}", _REST_OF_CASED)),  # Mistral's newer ones
        "|".join((*(f"{one}{_MARKS}?" for one in _CASED), r"\p{N}{1,3}", _REST_OF_CASED)),  # GPT-4o
    }
)


class Words:
    """Applies the library to each word once."""

    def __init__(self, native: tokenizers.Tokenizer, splits: tuple[re.Pattern[str], ...], kept: str):
        """splits: of the added tokens, each with one group, in the order in which the library looks for them. kept:
        characters that stay with a space behind them."""
        self._native, self._splits = native, splits
        self._cut = re.compile(rf" (?<=[^\s{re.escape(words.SPACE_PIECE + kept)}] )(?=[^\s{words.SPACE_PIECE}])")
        self._first = words.Memory(self._encoded)
        self._next = words.Memory(lambda word: self._encoded(f" {word}"))
        self._offsets = words.Memory(lambda word: native.encode(word, add_special_tokens=False).offsets)

    def __call__(self, text: str) -> list[int]:
        """Ids of `text`."""
        return self.with_borders(text, ())[0]

    def with_borders(self, text: str, borders: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of `text` and what `words.at_borders` tells of them; looks into no other word than those at borders."""
        ids: list[int] = []
        found: list[tuple[int, int]] = []
        waiting = collections.deque(borders)
        at = end = 0
        for i, part in enumerate(self._parts(text)):
            end += len(part)
            while waiting and waiting[0] < end:
                inside, across, border = 0, 0, waiting.popleft()
                if border > at:
                    first, behind = (at, end) if i % 2 else self._word(text, at, border, end)
                    ids += self._plain(text[at:first])
                    ((inside, across),) = words.at_borders(self._offsets[text[first:behind]], [border - first])
                    at = first
                found.append((len(ids) + inside, across))
            ids += self._first[part] if i % 2 else self._plain(text[at:end])
            at = end
        return ids, found + [(len(ids), 0)] * len(waiting)

    def _parts(self, text: str) -> list[str]:
        """Text, added token, text, added token, ..., text."""
        parts = [text]
        for split in self._splits:
            parts = [piece for i, part in enumerate(parts) for piece in ([part] if i % 2 else split.split(part))]
        return parts

    def _word(self, text: str, at: int, border: int, end: int) -> tuple[int, int]:
        """(first, end) of the word in text[at:end] that holds the character behind a border."""
        first = border + 1
        while (first := text.rfind(" ", at, first)) > at and self._cut.match(text, first, end) is None:
            pass
        after = self._cut.search(text, border + 1, end)
        return max(first, at), end if after is None else after.start()

    def _plain(self, text: str) -> list[int]:
        """Ids of text without added tokens."""
        if " " not in text:
            return self._first[text]
        first, *rest = self._cut.split(text)
        return [*self._first[first], *itertools.chain.from_iterable(map(self._next.__getitem__, rest))]

    def _encoded(self, word: str) -> list[int]:
        return self._native.encode(word, add_special_tokens=False).ids


def encoder(
    definition: Mapping[str, Any], native: tokenizers.Tokenizer, tokens: Iterable[tokenizers.AddedToken]
) -> Words | None:
    """The encoder of a checked definition with these added tokens; None if its words depend on each other."""
    tokens = list(tokens)
    if any(token.lstrip or token.rstrip or token.single_word for token in tokens):
        return None
    if definition["normalizer"] and any(token.normalized for token in tokens):
        return None
    kept = "" if _splits_words(definition) else _before_spaces(definition)
    if kept is None:
        return None
    plain = [[token.content for token in tokens if token.normalized is normalized] for normalized in (False, True)]
    splits = ("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) for texts in plain if texts)
    return Words(native, tuple(re.compile(f"({split})") for split in splits), kept)


def _splits_words(definition: Mapping[str, Any]) -> bool:
    """Whether a byte-level model splits its text into words by one of the listed patterns."""
    splitter = definition["pre_tokenizer"] or {}
    first, *rest = splitter.get("pretokenizers") or [splitter] if splitter.get("type") == "Sequence" else [splitter]
    last = rest[0] if rest else first
    bytes_ = last.get("type") == "ByteLevel" and last.get("add_prefix_space") is False and len(rest) < 2
    if not bytes_ or definition["normalizer"] not in (None, {"type": "NFC"}) or definition["model"]["type"] != "BPE":
        return False
    if not rest or first.get("type") == "Digits":
        return last.get("use_regex", True)
    isolated = first.get("type") == "Split" and first.get("behavior") == "Isolated" and not first.get("invert")
    return isolated and first["pattern"].get("Regex") in _PATTERNS and last.get("use_regex") is False


def _before_spaces(definition: Mapping[str, Any]) -> str | None:
    """Characters that a piece has in front of a space, for a model of characters that writes spaces as pieces and has
    all bytes; None for another one, or if they are many."""
    model, splitter = definition["model"], definition["pre_tokenizer"]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": words.SPACE_PIECE}
    if definition["normalizer"] != space or model["type"] != "BPE" or model.get("ignore_merges"):
        return None
    if splitter is not None and (splitter.get("type") != "Split" or splitter["pattern"] != {"String": " "}):
        return None  # there are no spaces left where it looks for them
    pieces = model["vocab"]
    if words.SPACE_PIECE not in pieces or not model.get("byte_fallback") or not pieces.keys() >= json_kind.BYTES:
        return None
    found = {
        before for piece in pieces for before in re.findall(f"([^{words.SPACE_PIECE}])[ {words.SPACE_PIECE}]", piece)
    }
    return "".join(sorted(found)) if len(found) <= _MOST else None
