"""Token ids of the Llama-2 family, exactly as the reference's slow tokenizer makes them.

The reference is `LlamaTokenizer` of transformers 4.37.2 (models/llama/tokenization_llama.py and tokenization_utils.py).
Today's transformers tokenizers give other ids for the same text, so the few rules it adds to sentencepiece are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_pb2

from vlguard_jax import errors
from vlguard_jax.families.chat import added_tokens
from vlguard_jax.families.chat import piece_model
from vlguard_jax.families.chat import words

# A serialized protobuf may be followed by another one, which is merged into it: normalizer_spec.add_dummy_prefix =
# false.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class PieceTokenizer:
    """Text to ids and back: a `tokenizer.Tokenizer`.

    Attributes:
      folder: where it was read from.
      legacy: transformers' flag; False means that text right after a special token gets no space piece.
      bos_id, eos_id, unk_id: special ids. pad_id, masked_id: LLaVA pads with unk (llava/train/train.py:886-904).
      vocab_size: number of sentencepiece pieces; added tokens come after.
      added: added and special tokens by their text. special: the texts of "bos_token", "eos_token" and "unk_token".
      size: 1 + the largest id, which is the rows that a model needs. unsupported: see `added_tokens.Settings`.
      fingerprint: sha256 over everything that determines ids (the model file, `legacy`, added tokens).
    """

    def __init__(self, folder: pathlib.Path, model: bytes, spec: Any, settings: added_tokens.Settings):
        """model, spec: see `piece_model.read`.

        Raises:
          UserError: a special token is not in the vocabulary, or an added one has the id of another piece.
          RuntimeError: sentencepiece refuses the model.
        """
        self.folder, self.unsupported = folder, settings.unsupported
        self.legacy = legacy = settings.legacy
        self._pieces = piece_model.processor(model if legacy else model + _NO_DUMMY_PREFIX)
        self._bare = piece_model.processor(model + _NO_DUMMY_PREFIX) if legacy else self._pieces
        self.vocab_size = int(self._pieces.GetPieceSize())
        beyond = {token.text: token for token in settings.added}
        self._check_added(settings.added)
        own = {name: self._special_id(text, name, beyond) for name, text in settings.special.items()}
        self.bos_id, self.eos_id, self.unk_id = (own[name] for name in ("bos", "eos", "unk"))
        self.pad_id = self.masked_id = self.unk_id
        self.special: Mapping[str, str] = {f"{name}_token": text for name, text in settings.special.items()}
        self.added = beyond | {
            text: added_tokens.AddedToken(text, own[name], special=True) for name, text in settings.special.items()
        }
        self._text_of = {token.id: token for token in self.added.values()}
        self.size = max(self.vocab_size, *(id_ + 1 for id_ in self._text_of))
        self._special = frozenset(token.text for token in self.added.values() if token.special)
        longest_first = sorted(self.added, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(re.escape(text) for text in longest_first) + ")")
        self._unk_text = settings.special["unk"]
        self._unk_length = len(self._bare.EncodeAsIds(self._unk_text))
        self._begin = " " if legacy and spec.normalizer_spec.add_dummy_prefix else ""
        self._by_word = words.WordEncoder(self._encode_bare) if words.separable(spec) else None
        decisive = [legacy, sorted(dataclasses.astuple(token) for token in self.added.values())]
        self.fingerprint = hashlib.sha256(model + json.dumps(decisive, ensure_ascii=True).encode()).hexdigest()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        return (self.eos_id,)

    @property
    def eos_text(self) -> str:
        """The text of the end-of-sequence token."""
        return self._text_of[self.eos_id].text

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        """Ids of `text`; added and special tokens that occur in it literally become their ids."""
        ids = [self.bos_id] if add_bos else []
        if self.legacy or not text:
            return ids + self._encode_split(text)
        body = self._encode_split(" " + text.replace(words.SPACE_PIECE, " "))
        lone_space = (
            len(body) > 1 and body[0] == self._pieces.PieceToId(words.SPACE_PIECE) and self._is_special(body[1])
        )
        return ids + (body[1:] if lone_space else body)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids as of `encode`, without a begin token, and the characters [first, end) of `text` that each encodes.

        Whitespace that an added token swallows is its own; a piece that stands for no character covers none.
        """
        if self.legacy or not text:
            found = list(self._spans(text, 0))
        else:
            found = list(self._spans(" " + text.replace(words.SPACE_PIECE, " "), -1))
            if len(found) > 1 and found[0][0] == self._pieces.PieceToId(words.SPACE_PIECE):
                found = found[self._is_special(found[1][0]) :]
        return [id_ for id_, _, _ in found], [(first, end) for _, first, end in found]

    def encode_with_borders(self, text: str, borders: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """See `tokenizer.Tokenizer`."""
        ids, offsets = self.encode_with_offsets(text)
        return ids, words.at_borders(offsets, borders)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of `ids`, with the reference's spaces: none before the first piece, nothing stripped at the end.

        Raises:
          UserError: an id without a token, which a model can generate if its embedding has more rows than the tokenizer
            has tokens.
        """
        parts: list[str] = []
        pieces: list[str] = []
        for id_ in ids:
            token = self._text_of.get(int(id_))
            if token is not None and token.special and skip_special:
                continue
            if token is not None and not token.special:
                parts += [text for text in [self._join(pieces)] if text] + [token.text]
                pieces = []
            else:
                pieces.append(token.text if token is not None else self._piece(int(id_)))
        if pieces:
            parts.append(self._join(pieces))
        return " ".join(parts)

    def _check_added(self, added: Iterable[added_tokens.AddedToken]) -> None:
        for token in added:
            if token.id < self.vocab_size and (piece := self._pieces.IdToPiece(token.id)) != token.text:
                raise errors.UserError(
                    f"{self.folder}: the added token {errors.short(token.text)} has the id {token.id}, which is"
                    f" {piece!r} in tokenizer.model; added tokens start at {self.vocab_size:,}: correct"
                    " added_tokens.json or tokenizer_config.json"
                )

    def _special_id(self, text: str, name: str, beyond: dict[str, added_tokens.AddedToken]) -> int:
        if text in beyond:
            return beyond[text].id
        id_ = int(self._pieces.PieceToId(text))
        if self._pieces.IdToPiece(id_) != text:  # sentencepiece gives the id of the unknown token
            raise errors.UserError(
                f"{self.folder}: {name}_token is {errors.short(text)}, which neither tokenizer.model nor"
                " added_tokens.json holds: name the one that the model was trained with"
            )
        return id_

    def _piece(self, id_: int) -> str:
        if not 0 <= id_ < self.vocab_size:
            raise errors.UserError(
                f"{self.folder}: the model wrote the token {id_:,}, and there is none beyond {self.size - 1:,}: the"
                " tokenizer is another model's, or the rows that pad the model's vocabulary were trained; copy the"
                " tokenizer that the model was trained with"
            )
        return self._pieces.IdToPiece(id_)

    def _is_special(self, id_: int) -> bool:
        return id_ in self._text_of and self._text_of[id_].special

    def _encode_split(self, text: str) -> list[int]:
        ids: list[int] = []
        parts = self._split.split(text)  # text, token, text, token, ..., text
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self.added[part].id)
                continue
            if i and self.added[parts[i - 1]].rstrip:
                part = part.lstrip()
            if i + 1 < len(parts) and self.added[parts[i + 1]].lstrip:
                part = part.rstrip()
            ids += self._encode_plain(part) if part else []
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        if self._by_word is not None:
            return self._by_word(self._begin + text)
        return list(self._pieces.EncodeAsIds(text)) if self.legacy else self._encode_bare(text)

    def _encode_bare(self, text: str) -> list[int]:
        if not text.startswith((words.SPACE_PIECE, " ")):
            return list(self._bare.EncodeAsIds(text))
        # Without the dummy prefix sentencepiece drops a leading space: put the unknown token's text before it, then cut
        # it off.
        return list(self._bare.EncodeAsIds(self._unk_text + text))[self._unk_length :]

    def _spans(self, text: str, shift: int) -> Iterator[tuple[int, int, int]]:
        """(id, first, end) of the tokens of `text`, whose first character is the one at `shift`, where -1 is none."""
        at = shift
        parts = self._split.split(text)
        for i, part in enumerate(parts):
            begin, at = at, at + len(part)
            if i % 2:
                before, after = parts[i - 1], parts[i + 1]
                begin -= (len(before) - len(before.rstrip())) * self.added[part].lstrip
                end = at + (len(after) - len(after.lstrip())) * self.added[part].rstrip
                yield self.added[part].id, max(begin, 0), end
                continue
            left = part
            if i and self.added[parts[i - 1]].rstrip:
                left = part.lstrip()
                begin += len(part) - len(left)
            if i + 1 < len(parts) and self.added[parts[i + 1]].lstrip:
                left = left.rstrip()
            for id_, first, end in self._plain_spans(left) if left else ():
                yield id_, max(begin + first, 0), max(begin + end, 0)

    def _plain_spans(self, text: str) -> Iterator[tuple[int, int, int]]:
        if self.legacy:
            return _spans_of(self._pieces, text)
        if not text.startswith((words.SPACE_PIECE, " ")):
            return _spans_of(self._bare, text)
        before = len(self._unk_text)
        spans = itertools.islice(_spans_of(self._bare, self._unk_text + text), self._unk_length, None)
        return ((id_, max(first - before, 0), max(end - before, 0)) for id_, first, end in spans)

    def _join(self, pieces: list[str]) -> str:
        if not pieces:
            return ""
        pieces = [pieces[0].removeprefix(words.SPACE_PIECE), *pieces[1:]]
        text = ""
        run: list[str] = []
        after_special = False
        for i, piece in enumerate(pieces):
            if piece in self._special:
                gap = " " if self.legacy and i and not after_special else ""
                text += gap + self._pieces.DecodePieces(run) + piece
                run = []
                after_special = True
            else:
                run.append(piece)
                after_special = False
        return text + self._pieces.DecodePieces(run)


def _spans_of(pieces: sentencepiece.SentencePieceProcessor, text: str) -> Iterator[tuple[int, int, int]]:
    """(id, first, end) of the pieces of `text`; every byte of a character covers the whole of it."""
    encoded = sentencepiece_pb2.SentencePieceText.FromString(pieces.Encode(text, out_type="serialized_proto"))  # type: ignore[attr-defined]
    ends = [piece.end for piece in encoded.pieces]
    for i in reversed(range(len(ends) - 1)):  # the last of the bytes has the character
        if encoded.pieces[i].begin == ends[i] and pieces.IsByte(encoded.pieces[i].id):
            ends[i] = ends[i + 1]
    if text.isascii():
        yield from ((piece.id, piece.begin, end) for piece, end in zip(encoded.pieces, ends, strict=True))
        return
    lengths = itertools.accumulate((len(character.encode()) for character in text), initial=0)
    place = {byte: i for i, byte in enumerate(lengths)}
    yield from ((piece.id, place[piece.begin], place[end]) for piece, end in zip(encoded.pieces, ends, strict=True))
