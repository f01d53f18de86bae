"""SmolLM's tokenizer written once more, from its description: special tokens, digits one by one, GPT-2's words, and
pairs of pieces joined in the order in which they were learnt."""

from __future__ import annotations

import functools
import itertools
import json
import pathlib
import re
import unicodedata

import regex

WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def has_digits(text: str) -> bool:
    """Whether a character is a number of any script."""
    return any(unicodedata.category(char).startswith("N") for char in text)


class ByteLevel:
    """Ids of a text by the vocabulary, the merges and the special tokens of a tokenizer.json; nothing else of it."""

    def __init__(self, path: pathlib.Path):
        found = json.loads(path.read_text(encoding="utf-8"))
        self.ids: dict[str, int] = found["model"]["vocab"]
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(found["model"]["merges"])}
        special = [token["content"] for token in found["added_tokens"]]
        self.special = re.compile(f"({'|'.join(map(re.escape, special))})")
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in shown]
        self.written = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(others)}
        self.pieces = functools.lru_cache(maxsize=None)(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Without a begin token."""
        ids = []
        for i, part in enumerate(self.special.split(text)):
            if i % 2:
                ids.append(self.ids[part])
                continue
            for stretch in _stretches(part):
                for word in WORDS.findall(stretch):
                    ids += self.pieces(word)
        return ids

    def _pieces(self, word: str) -> list[int]:
        written = [self.written[byte] for byte in word.encode()]
        parts = [char for char in written if char in self.ids]  # a byte without a token is left out
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            at = pairs.index(best)
            parts[at : at + 2] = ["".join(best)]
        return [self.ids[part] for part in parts]


def _stretches(text: str) -> list[str]:
    """The text between digits, and each digit."""
    found: list[str] = [""]
    for char in text:
        found += [char, ""] if has_digits(char) else []
        if not has_digits(char):
            found[-1] += char
    return [stretch for stretch in found if stretch]
