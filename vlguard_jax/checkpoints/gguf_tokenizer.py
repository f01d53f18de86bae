"""The tokenizer's files of a model out of a GGUF file: tokenizer.json and tokenizer_config.json.

Only byte-level BPE whose text is split as SmolLM's: every digit by itself, then GPT-2's words. Source: llama.cpp,
src/llama-vocab.cpp (LLAMA_VOCAB_PRE_TYPE_SMOLLM); the form is that of the tokenizer.json on the hub.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import limits
from vlguard_jax.checkpoints import gguf_files

_KEY = "tokenizer.ggml."
_KIND, _SPLITTING = "gpt2", "smollm"
_NORMAL, _CONTROL, _OWN = 1, 3, 4  # types of tokens: a piece of text; a special one; an added one
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # transformers' names, GGUF's
_TEMPLATE = "tokenizer.chat_template"
_AGAIN = "get the file again"
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


class Tokens(NamedTuple):
    """A vocabulary. texts, types: by id. merges: pairs of pieces, the first to be joined first. named: ids of bos, eos,
    unk and pad, as far as there are. ends: ids that end an answer, eos first."""

    texts: list[str]
    types: list[int]
    merges: list[tuple[str, str]]
    named: dict[str, int]
    ends: list[int]


def read(gguf: gguf_files.Gguf) -> Tokens:
    """The vocabulary of a file.

    Raises:
      UserError: a tokenizer of another kind, or one that is missing, incomplete or contradicts itself.
    """
    found, where = gguf.settings, gguf.path
    kind, splitting = (found.get(f"{_KEY}{key}") for key in ("model", "pre"))
    if (kind, splitting) != (_KIND, _SPLITTING):
        shown = f"{errors.short(kind)}, split as {errors.short(splitting)}"
        raise errors.UserError(
            f"{where}: its tokenizer is of the kind {shown}; only {_KIND!r}, split as {_SPLITTING!r}, is read; take the"
            " model's own folder"
        )
    fields.Fields(found, str(where)).only(**{f"{_KEY}add_space_prefix": (False,), f"{_KEY}add_eos_token": (False,)})
    texts, types = _list(gguf, "tokens", str), _list(gguf, "token_type", int)
    if not 0 < len(texts) <= limits.MODEL_SIZE or len(set(texts)) < len(texts) or len(types) != len(texts):
        raise errors.UserError(
            f"{where}: {len(texts):,} tokens, {len(set(texts)):,} different ones, and types of {len(types):,}; {_AGAIN}"
        )
    if odd := set(types) - {_NORMAL, _CONTROL, _OWN}:
        raise errors.UserError(f"{where}: the token type {min(odd)} is not supported; take the model's own folder")
    known, merges = set(texts), []
    for text in _list(gguf, "merges", str):
        first, _, second = text.partition(" ")
        if not {first, second, first + second} <= known:
            raise errors.UserError(f"{where}: the merge {errors.short(text)} is not of its tokens; {_AGAIN}")
        merges.append((first, second))
    named = {name: _id(gguf, key, len(texts)) for name, key in _NAMED.items() if f"{_KEY}{key}_token_id" in found}
    if "eos" not in named:
        raise errors.UserError(f"{where}: {_KEY}eos_token_id is missing; {_AGAIN}")
    turn = [_id(gguf, "eot", len(texts))] if f"{_KEY}eot_token_id" in found else []
    return Tokens(texts, types, merges, named, list(dict.fromkeys([named["eos"], *turn])))


def _list(gguf: gguf_files.Gguf, key: str, kind: type) -> list[Any]:
    value = gguf.settings.get(f"{_KEY}{key}")
    if not isinstance(value, list) or not all(type(one) is kind for one in value):
        raise errors.UserError(f"{gguf.path}: {_KEY}{key} is missing or no list of its kind; {_AGAIN}")
    return value


def _id(gguf: gguf_files.Gguf, key: str, count: int) -> int:
    value = gguf.settings[f"{_KEY}{key}_token_id"]
    if type(value) is not int or not 0 <= value < count:
        raise errors.UserError(
            f"{gguf.path}: {_KEY}{key}_token_id={errors.short(value)} is none of its {count:,} tokens; {_AGAIN}"
        )
    return value


def files(gguf: gguf_files.Gguf, tokens: Tokens, context_length: int) -> dict[str, str]:
    """{name: content} of the files that a folder needs, as transformers writes them.

    Raises:
      UserError: the chat template is no text, or a flag none.
    """
    settings = fields.Fields(gguf.settings, str(gguf.path))
    template = gguf.settings.get(_TEMPLATE)
    if not isinstance(template, str | None):
        raise errors.UserError(f"{gguf.path}: {_TEMPLATE} is no text; {_AGAIN}")
    added = [
        {"id": i, "content": text, **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)}
        | {"special": type_ == _CONTROL}
        for i, (text, type_) in enumerate(zip(tokens.texts, tokens.types, strict=True))
        if type_ != _NORMAL
    ]
    config = {
        "add_bos_token": settings.flag(f"{_KEY}add_bos_token"),
        "add_prefix_space": False,
        "added_tokens_decoder": {str(one["id"]): {k: v for k, v in one.items() if k != "id"} for one in added},
        **{f"{name}_token": tokens.texts[id_] for name, id_ in tokens.named.items()},
        **({"chat_template": template} if template is not None else {}),
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        # not GPT2Tokenizer, which splits no digits: transformers 5 makes that anew out of vocabulary and merges
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return {"tokenizer.json": _text(_tokenizer(tokens, added)), "tokenizer_config.json": _text(config)}


def _tokenizer(tokens: Tokens, added: list[dict[str, Any]]) -> dict[str, Any]:
    split = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL]}
    model = {
        "type": "BPE",
        **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")),
        **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
        "vocab": {text: id_ for id_, text in enumerate(tokens.texts)},
        "merges": [list(pair) for pair in tokens.merges],
    }
    return {
        "version": "1.0",
        **dict.fromkeys(("truncation", "padding")),
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": {**_BYTE_LEVEL, "add_prefix_space": True},
        "model": model,
    }


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
