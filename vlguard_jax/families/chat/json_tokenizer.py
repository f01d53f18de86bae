"""Token ids of a `tokenizer.json`, by the `tokenizers` library: byte-level BPE, BPE with byte fallback, Unigram.

The ids are those of transformers 5 (TokenizersBackend in tokenization_utils_tokenizers.py), which adds to the file the
tokens of tokenizer_config.json, or else those of special_tokens_map.json and added_tokens.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import hashlib
import json
import pathlib
from typing import Any

import tokenizers

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax.families.chat import added_tokens
from vlguard_jax.families.chat import json_kind
from vlguard_jax.families.chat import json_words
from vlguard_jax.families.chat import words

_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_CONFIG, _MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


class JsonTokenizer:
    """Text to ids and back: a `tokenizer.Tokenizer`.

    Attributes:
      folder: where it was read from.
      bos_id: the id that the file's post-processor puts in front of a text.
      eos_id, unk_id, pad_id, stop_ids, special, added, vocab_size, size, unsupported: see `tokenizer.Tokenizer`.
      masked_id: None, since its padding is never part of a text.
      fingerprint: sha256 over everything that determines ids (the model, its parts, added tokens).
    """

    masked_id = None

    def __init__(self, folder: pathlib.Path, found: Mapping[str, Any], config: Config):
        """found: the parsed tokenizer.json. config: the other files.

        Raises:
          OtherKindError: a kind of tokenizer that is not known.
          UserError: a part is broken, ids contradict each other, or there is no end token.
        """
        self.folder, self.special, self.unsupported = folder, config.special, config.unsupported
        self._path = folder / "tokenizer.json"
        definition, self.bos_id = json_kind.checked(found, self._path)
        pieces = json_kind.vocabulary(definition, self._path)
        listed = _without_hf_only(config.listed(definition["added_tokens"]), len(pieces))
        own = [{"id": entry["id"], **_entry(entry, entry["content"])} for entry in definition["added_tokens"]]
        definition["added_tokens"] = [entry for entry in own if entry["id"] in listed]
        model = json.dumps(definition["model"], sort_keys=True)
        rest = json.dumps({key: value for key, value in definition.items() if key != "model"})
        with _native(self._path):
            self._native = tokenizers.Tokenizer.from_str(f'{rest[:-1]}, "model": {model}}}')
            self._native.add_tokens(_missing(self._native, listed, config))
            entries = self._native.get_added_tokens_decoder()
        _check_ids(self.folder, pieces, listed, entries)
        self.added = {
            token.content: added_tokens.AddedToken(token.content, id_, token.special, token.lstrip, token.rstrip)
            for id_, token in entries.items()
        }
        self.vocab_size, self._ids = len(pieces), frozenset({*pieces.values(), *entries})
        self.size = max(self._ids) + 1
        if self.bos_id is not None and self.bos_id not in self._ids:
            raise errors.UserError(f"{self._path}: texts begin with the id {self.bos_id}, which is no token's")
        self.eos_id, self.unk_id = self._named("eos_token"), self._unknown(definition["model"], pieces)
        self.stop_ids: tuple[int, ...] = (self.eos_id,)
        pad = self._native.token_to_id(self.special.get("pad_token", ""))
        self.pad_id = self.eos_id if pad is None else pad
        self._words = json_words.encoder(definition, self._native, entries.values())
        ordered = sorted(
            (id_, *(getattr(token, key) for key in ("content", *_FLAGS))) for id_, token in entries.items()
        )
        decisive = [definition["normalizer"], definition["pre_tokenizer"], ordered, self.bos_id]
        self.fingerprint = hashlib.sha256((model + json.dumps(decisive, sort_keys=True)).encode()).hexdigest()

    @property
    def eos_text(self) -> str:
        """The text of the end token."""
        return self.special["eos_token"]

    def stopping_at(self, ids: Iterable[int]) -> JsonTokenizer:
        """The same with further ids that end an answer."""
        other = object.__new__(JsonTokenizer)  # copy.copy reads the folder again, as in another process
        other.__dict__ |= self.__dict__ | {"stop_ids": (self.eos_id, *sorted({*ids} - {self.eos_id}))}
        return other

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        """Ids of `text`, after the begin token if texts have one; added tokens in it become their ids.

        Raises:
          UserError: the library fails, since a pattern of the file takes too long on this text.
        """
        begin = [self.bos_id] if add_bos and self.bos_id is not None else []
        with _native(self._path):
            if self._words is not None:
                return begin + self._words(text)
            return begin + self._native.encode(text, add_special_tokens=False).ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids without a begin token, and the characters [first, end) of `text` that each encodes."""
        with _native(self._path):
            encoded = self._native.encode(text, add_special_tokens=False)
            return encoded.ids, encoded.offsets

    def encode_with_borders(self, text: str, borders: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """See `tokenizer.Tokenizer`."""
        if self._words is None:
            ids, offsets = self.encode_with_offsets(text)
            return ids, words.at_borders(offsets, borders)
        with _native(self._path):
            return self._words.with_borders(text, borders)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of `ids`.

        Raises:
          UserError: an id without a token, which a model can generate if its embedding has more rows than the tokenizer
            has tokens.
        """
        wanted = [int(id_) for id_ in ids]
        for id_ in wanted:
            if id_ not in self._ids:
                raise errors.UserError(
                    f"{self.folder}: the model wrote the token {id_:,}, which is none of the tokenizer's: it"
                    " is another model's, or the rows that pad the model's vocabulary were trained; copy the tokenizer"
                    " that the model was trained with"
                )
        with _native(self._path):
            return str(self._native.decode(wanted, skip_special_tokens=skip_special))

    def _named(self, name: str) -> int:
        text = self.special.get(name)
        id_ = None if text is None else self._native.token_to_id(text)
        if id_ is None:
            raise errors.UserError(
                f"{self.folder}: {name} of {_CONFIG} is {errors.short(text)}, which is not a token of tokenizer.json:"
                " name the one that the model was trained with"
            )
        return int(id_)

    def _unknown(self, model: Mapping[str, Any], pieces: Mapping[str, int]) -> int | None:
        if "unk_token" in self.special:
            return self._named("unk_token")
        return model.get("unk_id") if "unk_id" in model else pieces.get(model.get("unk_token") or "")


class Config:
    """The files beside tokenizer.json, as transformers reads them.

    Attributes:
      special: the texts of the named tokens. flags: {text: entry} of those.
      tokens: {id: entry} of added_tokens_decoder, or else of added_tokens.json.
      complete: whether the former was there; it wins over tokenizer.json, which wins over added_tokens.json.
      more: texts of further special tokens.
      unsupported: see `tokenizer.Tokenizer`.
    """

    def __init__(self, folder: pathlib.Path):
        """Raises UserError where a file is broken."""
        config = added_tokens.settings(folder / _CONFIG)
        decoder = config.get("added_tokens_decoder")
        if not isinstance(decoder, dict | None):
            raise errors.UserError(f"{folder / _CONFIG}: added_tokens_decoder must be an object of id: token")
        self.complete = decoder is not None
        named = config if self.complete else {**config, **added_tokens.settings(folder / _MAP)}
        tokens = {
            key: value
            for key, value in named.items()
            if value is not None and (key in _NAMED or (key.endswith("_token") and isinstance(value, str | dict)))
        }
        self.special = {key: added_tokens.text_of(value, folder, key) for key, value in tokens.items()}
        self.flags = {
            self.special[key]: _entry(
                {**value, "special": True} if isinstance(value, dict) else {"special": True}, self.special[key]
            )
            for key, value in tokens.items()
        }
        more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
        if not isinstance(more, list | dict):
            raise errors.UserError(
                f"{folder}: additional_special_tokens must be a list of tokens, not {errors.short(more)}"
            )
        texts = more.values() if isinstance(more, dict) else more
        self.more = [added_tokens.text_of(token, folder, "additional_special_tokens") for token in texts]
        self.tokens: dict[int, Mapping[str, Any]] = {}
        if decoder is not None:
            for key, entry in decoder.items():
                content = added_tokens.text_of(entry, folder, f"added_tokens_decoder[{errors.short(key)}]")
                id_ = int(key) if key.isascii() and key.isdigit() and len(key) < 11 else -1
                self.tokens[_id(id_, content, folder / _CONFIG)] = _entry(entry, content)
        else:
            special = {*self.special.values(), *self.more}
            for content, id_ in added_tokens.settings(folder / _ADDED).items():
                flags = {"special": content in special, "normalized": content not in special}
                self.tokens[_id(id_, content, folder / _ADDED)] = _entry(flags, content)
        splits = fields.Fields(config, str(folder / _CONFIG)).flag("split_special_tokens")
        self.unsupported = f"{folder / _CONFIG}: split_special_tokens is not supported" if splits else ""

    def listed(self, entries: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
        """{id: entry} of all files; entries: of tokenizer.json."""
        own = {entry["id"]: _entry(entry, entry["content"]) for entry in entries}
        return own | self.tokens if self.complete else self.tokens | own


def read(folder: pathlib.Path, found: Mapping[str, Any]) -> JsonTokenizer:
    """The tokenizer of a folder whose tokenizer.json has been parsed.

    Raises:
      OtherKindError, UserError: see `JsonTokenizer`.
    """
    return JsonTokenizer(folder, found, Config(folder))


def _missing(native: tokenizers.Tokenizer, listed: Mapping[int, Mapping[str, Any]], config: Config) -> list[Any]:
    """The tokens that transformers adds to those of the file."""
    held = {id_: repr(token) for id_, token in native.get_added_tokens_decoder().items()}
    made = {id_: _token(entry) for id_, entry in sorted(listed.items())}
    new = [token for token in made.values() if repr(token) not in held.values()]
    known = {token.content for token in (*native.get_added_tokens_decoder().values(), *new)}
    for content in (*config.special.values(), *config.more):
        if content not in known and content not in added_tokens.HF_ONLY:
            known.add(content)
            new.append(_token(config.flags.get(content) or _entry({"special": True}, content)))
    for token in new:
        token.special = token.special or token.content in config.special.values()
    return new


def _without_hf_only(listed: dict[int, Mapping[str, Any]], vocab_size: int) -> dict[int, Mapping[str, Any]]:
    """Without the last tokens that only a llava-hf folder has, as in the other layout; a padding token alone is the
    model's own."""
    if added_tokens.HF_ONLY[0] not in {entry["content"] for entry in listed.values()}:
        return listed
    last = max((i for i, entry in listed.items() if entry["content"] not in added_tokens.HF_ONLY), default=-1)
    return {i: entry for i, entry in listed.items() if i <= last or i < vocab_size}


def _check_ids(
    folder: pathlib.Path,
    pieces: Mapping[str, int],
    listed: Mapping[int, Mapping[str, Any]],
    entries: Mapping[int, Any],
) -> None:
    """Each added token has the id that its file says, which is no other token's."""
    texts = {id_: piece for piece, id_ in pieces.items()}
    ids = {token.content: id_ for id_, token in entries.items()}
    for id_, entry in listed.items():
        if (own := ids.get(entry["content"])) != id_:
            raise errors.UserError(
                f"{folder}: the added token {errors.short(entry['content'])} has the id {id_}, and transformers would"
                f" give it {own}: in {_CONFIG} and tokenizer.json its id must be the same, and consecutive after the"
                " vocabulary"
            )
    for id_, token in entries.items():
        if texts.get(id_, token.content) != token.content:
            raise errors.UserError(
                f"{folder}: the added token {errors.short(token.content)} has the id {id_}, which is"
                f" {errors.short(texts[id_])} in the vocabulary: correct {_CONFIG} or tokenizer.json"
            )


@contextlib.contextmanager
def _native(path: pathlib.Path) -> Iterator[None]:
    """Errors of the library, which raises bare exceptions and panics, as errors of the file."""
    try:
        yield
    except errors.UserError:
        raise
    except BaseException as e:
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        raise errors.UserError(
            f"{path}: the tokenizers library refuses it: {errors.short(str(e))}: copy it again"
        ) from e


def _token(entry: Mapping[str, Any]) -> Any:
    return tokenizers.AddedToken(entry["content"], **{key: entry[key] for key in _FLAGS})


def _entry(entry: Mapping[str, Any], content: str) -> dict[str, Any]:
    """With all flags; transformers takes a token as normalized unless it is special."""
    flags = {key: entry.get(key, False) for key in _FLAGS}
    return {"content": content, **flags, "normalized": entry.get("normalized", not flags["special"])}


def _id(id_: Any, content: str, path: pathlib.Path) -> int:
    if type(id_) is not int or not 0 <= id_ <= added_tokens.MAX_ID:
        raise errors.UserError(
            f"{path}: the id of token {errors.short(content)} must be a number from 0 to {added_tokens.MAX_ID}, not"
            f" {errors.short(id_)}"
        )
    return id_
