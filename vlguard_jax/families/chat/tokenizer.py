"""Token ids of the Llama-2 family, exactly as the reference's slow tokenizer makes them.

The reference is `LlamaTokenizer` of transformers 4.37.2 (models/llama/tokenization_llama.py and tokenization_utils.py).
Today's transformers tokenizers give other ids for the same text, so the few rules it adds to sentencepiece are here.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from typing import Any

from vlguard_jax import errors
from vlguard_jax.families.chat import added_tokens
from vlguard_jax.families.chat import piece_json
from vlguard_jax.families.chat import piece_model
from vlguard_jax.families.chat import words

# A serialized protobuf may be followed by another one, which is merged into it: normalizer_spec.add_dummy_prefix =
# false.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"

# Rows of embedding and head without a token: more than these are not padding; the tokenizer is another model's.
_MOST_UNUSED_SHARE, _MOST_UNUSED = 0.1, 64


class Tokenizer:
    """Text to ids and back. Made by `load_tokenizer`.

    Attributes:
      folder: where it was read from.
      legacy: transformers' flag; False means that text right after a special token gets no space piece.
      bos_id, eos_id, unk_id: special ids. pad_id: LLaVA pads with unk (llava/train/train.py:886-904).
      vocab_size: number of sentencepiece pieces; added tokens come after.
      added: added and special tokens by their text.
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
        self.pad_id = self.unk_id
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
        self._by_word = words.WordEncoder(self._encode_bare) if words.separable(spec) else None
        decisive = [legacy, sorted(dataclasses.astuple(token) for token in self.added.values())]
        self.fingerprint = hashlib.sha256(model + json.dumps(decisive, ensure_ascii=True).encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return load_tokenizer, (self.folder,)  # for other processes

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
            return self._by_word(f" {text}" if self.legacy else text)
        return list(self._pieces.EncodeAsIds(text)) if self.legacy else self._encode_bare(text)

    def _encode_bare(self, text: str) -> list[int]:
        if not text.startswith((words.SPACE_PIECE, " ")):
            return list(self._bare.EncodeAsIds(text))
        # Without the dummy prefix sentencepiece drops a leading space: put the unknown token's text before it, then cut
        # it off.
        return list(self._bare.EncodeAsIds(self._unk_text + text))[self._unk_length :]

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


def load_tokenizer(folder: str | pathlib.Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder: its `tokenizer.model`, or else `tokenizer.json`, with the other files
    (added_tokens.py).

    Raises:
      UserError: as `read`, or a setting that the reference never uses.
    """
    found = read(folder)
    if found.unsupported:
        raise errors.UserError(found.unsupported)
    return found


@functools.lru_cache(maxsize=8)
def read(folder: str | pathlib.Path) -> Tokenizer:
    """The tokenizer of a folder, which may be meant for another program.

    Raises:
      UserError: no vocabulary in the folder, one of another kind, an unreadable file, or ids that contradict each
        other.
    """
    folder = pathlib.Path(folder)
    path, fast = folder / "tokenizer.model", folder / "tokenizer.json"
    if path.is_file():
        settings, (model, spec) = added_tokens.read(folder), piece_model.read(path)
    elif fast.is_file():
        found = piece_json.read(fast)
        settings = added_tokens.read(folder, found.legacy, found.added)
        path, model, spec = fast, found.data, found.spec
    else:
        raise errors.UserError(
            f"{folder} has no tokenizer.model or tokenizer.json: copy it from the checkpoint that the model was trained"
            " from"
        )
    try:
        return Tokenizer(folder, model, spec, settings)
    except RuntimeError as e:
        raise piece_model.refusal(path, model, str(e)) from e


def check_rows(tokenizer: Tokenizer, rows: int) -> None:
    """Check that every id of `tokenizer` has a row in a model's embedding and head (JAX would take the last row for an
    id beyond `rows`), and that few rows have no id.

    Raises:
      UserError: they do not fit; both sizes are named.
    """
    copy = "copy the tokenizer that this model was trained with"
    if tokenizer.vocab_size > rows:
        raise errors.UserError(
            f"{tokenizer.folder}: tokenizer.model has {tokenizer.vocab_size:,} pieces, the model {rows:,} rows for"
            f" them: {copy}"
        )
    beyond = sorted((token.id, text) for text, token in tokenizer.added.items() if token.id >= rows)
    if beyond:
        id_, text = beyond[0]
        raise errors.UserError(
            f"{tokenizer.folder}: the token {errors.short(text)} has the id {id_:,}, the model {rows:,} rows, for ids"
            f" up to {rows - 1:,}: {copy}, or take the token out of added_tokens.json and tokenizer_config.json"
        )
    if rows - tokenizer.size > max(_MOST_UNUSED, _MOST_UNUSED_SHARE * rows):
        raise errors.UserError(
            f"{tokenizer.folder}: the tokenizer has {tokenizer.size:,} tokens, the model {rows:,} rows for them, which"
            f" is more than padding adds: {copy}"
        )
