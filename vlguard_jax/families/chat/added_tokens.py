"""The tokens that a checkpoint's JSON files add to its vocabulary, checked before their ids index anything."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import re
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files

MAX_ID = 999_999  # far above any vocabulary

# llava-hf folders add these two after the vocabulary. The reference tokenizer has neither: a picture is IMAGE_TOKEN, a
# literal "<image>" in text without pictures is plain text. Without them both layouts have the same ids.
HF_ONLY = ("<image>", "<pad>")

_DEFAULTS = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
_CONFIG, _MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_FAST = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token that is split off from the text before sentencepiece."""

    text: str
    id: int
    special: bool
    lstrip: bool = False
    rstrip: bool = False


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings besides the vocabulary. special: the texts of "bos", "eos" and "unk". added: with unique texts and ids.

    unsupported: a setting that the reference never uses, in words; "" if there is none.
    """

    legacy: bool
    special: Mapping[str, str]
    added: tuple[AddedToken, ...]
    unsupported: str


@dataclasses.dataclass(frozen=True)
class HfTokens:
    """Tokens that a llava-hf folder adds to a tokenizer.

    image, pad: ids of `<image>` and `<pad>`.
    records: {id: entry of `added_tokens_decoder`} of every added token, including these two; empty without a tokenizer.
    beyond: ids of those that are not pieces of the vocabulary.
    """

    image: int
    pad: int
    records: Mapping[int, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    beyond: frozenset[int] = frozenset()

    @property
    def rows(self) -> int:
        """Rows of embedding and head that these ids need."""
        return max(self.image, self.pad, *self.records) + 1


def read(folder: pathlib.Path, legacy: bool = True, listed: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Read `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, as far as they exist.

    legacy: value of a missing key; True in transformers 4.37.2 (tokenization_llama.py:163-171). listed: {id: entry} of
    tokens in another file, as in `added_tokens_decoder`.

    Raises:
      UserError: a file is not readable, a token has no text, an id is not a number from 0 to `MAX_ID`, a flag is not
        true or false, or two tokens share an id.
    """
    config = settings(folder / _CONFIG)
    named = {**config, **settings(folder / _MAP)}
    special = {
        name: text_of(named.get(f"{name}_token", default), folder, f"{name}_token")
        for name, default in _DEFAULTS.items()
    }
    for name in _DEFAULTS:  # even where the other file wins
        text_of(config.get(f"{name}_token") or special[name], folder, f"{_CONFIG}: {name}_token")
    decoder = config.get("added_tokens_decoder", {})
    if not isinstance(decoder, dict) or not all(isinstance(entry, dict) for entry in decoder.values()):
        raise errors.UserError(f"{folder / _CONFIG}: added_tokens_decoder must be an object of id: token")
    more = named.get("additional_special_tokens")
    more = () if more is None else more
    if not isinstance(more, (list, tuple)):
        raise errors.UserError(
            f"{folder}: additional_special_tokens must be a list of tokens, not {errors.short(more)}"
        )
    extra = {text_of(token, folder, "additional_special_tokens") for token in more}
    tokens = [_by_text(text, id_, text in extra, folder / _ADDED) for text, id_ in settings(folder / _ADDED).items()]
    tokens += [_by_id(id_, entry, folder / _CONFIG) for id_, entry in decoder.items()]
    tokens += [_by_id(id_, entry, folder / _FAST) for id_, entry in (listed or {}).items() if id_ not in decoder]
    legacy = fields.Fields(config, str(folder / _CONFIG)).flag("legacy", legacy)
    added = tuple(token for token in _unique(tokens, folder) if token.text not in HF_ONLY)
    return Settings(legacy, special, added, _unsupported(config, decoder, folder / _CONFIG))


def _by_text(text: str, id_: Any, special: bool, path: pathlib.Path) -> AddedToken:
    if type(id_) is not int or not 0 <= id_ <= MAX_ID:
        raise errors.UserError(
            f"{path}: the id of token {errors.short(text)} must be a number from 0 to {MAX_ID}, not {errors.short(id_)}"
        )
    return AddedToken(text_of(text, path.parent, path.name), id_, special)


def _by_id(id_: str, entry: Mapping[str, Any], path: pathlib.Path) -> AddedToken:
    text = text_of(entry, path.parent, f"{path.name}: added_tokens_decoder[{errors.short(id_)}]")
    if not re.fullmatch("[0-9]{1,10}", id_) or int(id_) > MAX_ID:
        raise errors.UserError(
            f"{path}: the id of token {errors.short(text)} must be a number from 0 to {MAX_ID}, not {errors.short(id_)}"
        )
    return AddedToken(text, int(id_), *(bool(entry.get(key)) for key in ("special", "lstrip", "rstrip")))


def _unique(tokens: list[AddedToken], folder: pathlib.Path) -> list[AddedToken]:
    """One entry per token, from the later file, which has all flags."""
    by_text: dict[str, AddedToken] = {}
    by_id: dict[int, str] = {}
    for token in tokens:
        if (known := by_text.get(token.text, token)).id != token.id:
            raise errors.UserError(
                f"{folder}: token {errors.short(token.text)} has two ids, {known.id} and {token.id}; {_ADDED} and"
                f" {_CONFIG} must agree"
            )
        if (other := by_id.setdefault(token.id, token.text)) != token.text:
            raise errors.UserError(
                f"{folder}: tokens {errors.short(other)} and {errors.short(token.text)} have the same id {token.id};"
                f" correct {_ADDED} or {_CONFIG}"
            )
        by_text[token.text] = token
    return list(by_text.values())


def _unsupported(config: Mapping[str, Any], decoder: Mapping[str, Mapping[str, Any]], path: pathlib.Path) -> str:
    for key, wanted in (("add_bos_token", True), ("add_eos_token", False)):
        if config.get(key, wanted) is not wanted:
            return f"{path}: {key} must be {json.dumps(wanted)}, as in LLaVA"
    odd = [entry["content"] for entry in decoder.values() if entry.get("single_word")]
    return f"{path}: added token {errors.short(odd[0])} is single_word, which is not supported" if odd else ""


def settings(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file; {} without the file. Raises UserError where it is broken."""
    return files.read_object(path) if path.is_file() else {}


def text_of(token: Any, folder: pathlib.Path, what: str) -> str:
    """The text of a token as settings give it, by itself or in an object. Raises UserError where it has none."""
    text = token
    if isinstance(token, dict):
        text = token.get("content")
        for key in _FLAGS:
            fields.Fields(token, f"{folder}: {what}").flag(key)
    if not isinstance(text, str) or not text:
        raise errors.UserError(f"{folder}: {what} must be a token's text, not {errors.short(text)}")
    return text
