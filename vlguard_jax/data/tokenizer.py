"""Token ids of the Llama-2 family, exactly as the reference's slow tokenizer makes them.

The reference is `LlamaTokenizer` of transformers 4.37.2 (models/llama/tokenization_llama.py and tokenization_utils.py). Today's
transformers tokenizers give other ids for the same text, so the few rules it adds to sentencepiece stand here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from typing import Any

import sentencepiece

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.data import words

# A serialized protobuf may be followed by another one to be merged into it: normalizer_spec.add_dummy_prefix = false.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"

# llava-hf folders add these two after the vocabulary. The reference tokenizer does not know them: a picture is IMAGE_TOKEN,
# a literal "<image>" in text without pictures is plain text. Leaving them out gives both layouts the same ids.
_HF_ONLY = ("<image>", "<pad>")


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of the text before sentencepiece sees it."""

    text: str
    id: int
    special: bool
    lstrip: bool = False
    rstrip: bool = False


class Tokenizer:
    """Text to ids and back. Made by `load_tokenizer`.

    Attributes:
      folder: where it was read from.
      legacy: transformers' flag; False means that text right after a special token gets no space piece.
      bos_id, eos_id, unk_id: special ids. pad_id: LLaVA pads with unk (llava/train/train.py:886-904).
      vocab_size: number of sentencepiece pieces; added tokens come after.
      fingerprint: sha256 over everything that decides ids (the model file, `legacy`, added tokens).
    """

    def __init__(self, folder: pathlib.Path, model: bytes, legacy: bool, special: Mapping[str, str], added: Iterable[AddedToken]):
        self.folder = folder
        self.legacy = legacy
        self._pieces = _processor(model if legacy else model + _NO_DUMMY_PREFIX)
        self._bare = _processor(model + _NO_DUMMY_PREFIX) if legacy else self._pieces
        self.vocab_size = int(self._pieces.GetPieceSize())
        beyond = {token.text: token for token in added}
        self.bos_id, self.eos_id, self.unk_id = (self._special_id(special[name], beyond) for name in ("bos", "eos", "unk"))
        self.pad_id = self.unk_id
        own = {special["bos"]: self.bos_id, special["eos"]: self.eos_id, special["unk"]: self.unk_id}
        self._added = beyond | {text: AddedToken(text, id_, special=True) for text, id_ in own.items()}
        self._text_of = {token.id: token for token in self._added.values()}
        self._special = frozenset(token.text for token in self._added.values() if token.special)
        longest_first = sorted(self._added, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(re.escape(text) for text in longest_first) + ")")
        self._unk_text = special["unk"]
        self._unk_length = len(self._bare.EncodeAsIds(self._unk_text))
        self._by_word = words.WordEncoder(self._encode_bare) if words.separable(model) else None
        decisive = [legacy, sorted(dataclasses.astuple(token) for token in self._added.values())]
        self.fingerprint = hashlib.sha256(model + json.dumps(decisive, ensure_ascii=True).encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return load_tokenizer, (self.folder,)  # to another process

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        return (self.eos_id,)

    @property
    def eos_text(self) -> str:
        """What the end-of-sequence token looks like in text."""
        return self._text_of[self.eos_id].text

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        """Ids of `text`; added and special tokens that stand in it literally become their ids."""
        ids = [self.bos_id] if add_bos else []
        if self.legacy or not text:
            return ids + self._encode_split(text)
        body = self._encode_split(" " + text.replace(words.SPACE_PIECE, " "))
        lone_space = len(body) > 1 and body[0] == self._pieces.PieceToId(words.SPACE_PIECE) and self._is_special(body[1])
        return ids + (body[1:] if lone_space else body)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of `ids`, spaces as the reference leaves them: none in front of the first piece, nothing stripped at the end."""
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
                pieces.append(token.text if token is not None else self._pieces.IdToPiece(int(id_)))
        if pieces:
            parts.append(self._join(pieces))
        return " ".join(parts)

    def _special_id(self, text: str, beyond: Mapping[str, AddedToken]) -> int:
        return beyond[text].id if text in beyond else int(self._pieces.PieceToId(text))

    def _is_special(self, id_: int) -> bool:
        return id_ in self._text_of and self._text_of[id_].special

    def _encode_split(self, text: str) -> list[int]:
        ids: list[int] = []
        parts = self._split.split(text)  # text, token, text, token, ..., text
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self._added[part].id)
                continue
            if i and self._added[parts[i - 1]].rstrip:
                part = part.lstrip()
            if i + 1 < len(parts) and self._added[parts[i + 1]].lstrip:
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
        # Without the dummy prefix sentencepiece drops a leading space: let the unknown token's text stand in front, then cut it off.
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


def _processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    return processor


@functools.lru_cache(maxsize=8)
def load_tokenizer(folder: str | pathlib.Path) -> Tokenizer:
    """Read `tokenizer.model`, `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` of a checkpoint folder.

    A missing `legacy` key means True, as in transformers 4.37.2 (tokenization_llama.py:163-171).

    Raises:
      UserError: no tokenizer.model in the folder, an unreadable file, or a setting that the reference never uses.
    """
    folder = pathlib.Path(folder)
    path = folder / "tokenizer.model"
    if not path.is_file():
        raise errors.UserError(f"{folder} has no tokenizer.model: copy it from the checkpoint that the model was trained from")
    config = _read_json(folder / "tokenizer_config.json")
    for key, wanted in (("add_bos_token", True), ("add_eos_token", False)):
        if config.get(key, wanted) is not wanted:
            raise errors.UserError(f"{folder / 'tokenizer_config.json'}: {key} must be {json.dumps(wanted)}, as in LLaVA")
    named = {**config, **_read_json(folder / "special_tokens_map.json")}
    special = {name: _content(named.get(f"{name}_token", default)) for name, default in _DEFAULTS.items()}
    legacy = config.get("legacy")
    try:
        added = _added_tokens(config, _read_json(folder / "added_tokens.json"), named)
        return Tokenizer(folder, path.read_bytes(), True if legacy is None else bool(legacy), special, added)
    except (RuntimeError, OSError) as e:
        raise errors.UserError(f"{path} is not a sentencepiece model ({e}): copy it again") from e


_DEFAULTS = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    return files.read_object(path) if path.is_file() else {}


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else token["content"]


def _added_tokens(config: Mapping[str, Any], added: Mapping[str, int], named: Mapping[str, Any]) -> list[AddedToken]:
    special = {_content(token) for token in named.get("additional_special_tokens", ())}
    tokens = {text: AddedToken(text, id_, special=text in special) for text, id_ in added.items()}
    for id_, entry in config.get("added_tokens_decoder", {}).items():
        if entry.get("single_word"):
            raise errors.UserError(f"tokenizer_config.json: added token {entry['content']!r} is single_word, which is not supported")
        flags = {key: bool(entry.get(key)) for key in ("special", "lstrip", "rstrip")}
        tokens[entry["content"]] = AddedToken(entry["content"], int(id_), **flags)
    return [token for text, token in tokens.items() if text not in _HF_ONLY]
