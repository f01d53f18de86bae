"""Checks a `tokenizer.json` in Python before the native code of the `tokenizers` library parses it.

Known kinds are those of language models: BPE (of bytes, or of characters with bytes as the fallback) and Unigram. Their
parts are listed here with the values that they may have; every other part is refused by name. A part may not make a
text much longer, nor may a pattern take more than polynomial time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import math
import pathlib
import re
from typing import Any

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.families.chat import added_tokens
from vlguard_jax.families.chat import piece_json
from vlguard_jax.families.chat import piece_model

_PARTS, _PATTERN, _CONTENT, _GROWTH = 16, 2000, 100, 64
_NORMALIZERS = (
    *("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents"),
    *("ByteLevel", "Precompiled", "Prepend", "Replace", "Strip"),
)
_SPLITTERS = ("ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "Whitespace", "WhitespaceSplit")
_DECODERS = ("ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip")
_BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
_SCHEMES = ("first", "always", "never")
_FLAGS = (
    *("add_prefix_space", "trim_offsets", "use_regex", "individual_digits", "invert", "split"),
    *("strip_left", "strip_right"),
)
_NESTED = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
BYTES = frozenset(f"<0x{i:02X}>" for i in range(256))
# Bytes of a text in UTF-8. Trained vocabularies lack some of the others (SmolLM2's lacks 21): control characters, the
# first bytes of planes without characters, and bytes that UTF-8 does not use. A character of them has no id, as in
# transformers.
_WRITTEN = frozenset({*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0xF5)} - {0xC0, 0xC1, 0xF1, 0xF2})
_OPEN_ENDED = re.compile(r"[*+]|\{\d*,\d*\}")


def checked(found: Mapping[str, Any], path: pathlib.Path) -> tuple[dict[str, Any], int | None]:
    """(What the `tokenizers` library is to read, the id in front of every text or None) of a parsed file.

    Without truncation, padding and post-processor: it only adds tokens, and trims offsets.

    Raises:
      OtherKindError: a part is not known.
      UserError: a part is broken.
    """
    model = found.get("model")
    kind = model.get("type", "BPE" if "merges" in model else "Unigram") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or kind not in ("BPE", "Unigram"):
        raise _other(path, f"the model {errors.short(kind)}")
    splitters = list(_flat(found, "pre_tokenizer", _SPLITTERS, path))
    normalizers = list(_flat(found, "normalizer", _NORMALIZERS, path))
    decoders = list(_flat(found, "decoder", _DECODERS, path))
    for part in (*normalizers, *splitters, *decoders):
        _check_part(part, path)
    for parts in (normalizers, decoders):
        if (growth := math.prod(map(_growth, parts))) > _GROWTH:
            raise _broken(path, f"its replacements make a text up to {growth:,.0f} times as long")
    if kind == "BPE":
        _check_bpe(model, any(part["type"] == "ByteLevel" for part in (*splitters, *normalizers)), path)
    else:
        _check_unigram(model, path)
    _check_added(found.get("added_tokens"), path)
    kept = {key: found.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")}
    kept |= {"model": {"type": kind, **model}, "added_tokens": found.get("added_tokens") or []}
    cleared: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None}
    return cleared | kept, _begin(found.get("post_processor"), path)


def vocabulary(found: Mapping[str, Any], path: pathlib.Path) -> dict[str, int]:
    """{piece: id}, without added tokens, of a parsed file of any kind, also one that only other programs read.

    Raises:
      UserError: it has none.
    """
    try:
        pieces = found["model"]["vocab"]
        ids = dict(pieces) if isinstance(pieces, Mapping) else {entry[0]: i for i, entry in enumerate(pieces)}
    except (KeyError, TypeError, IndexError, ValueError):
        ids = {None: None}
    if not all(isinstance(text, str) and type(id_) is int for text, id_ in ids.items()):
        raise errors.UserError(f"{path}: not a vocabulary of the tokenizers library: copy it again, or leave it out")
    return ids


def _flat(
    found: Mapping[str, Any], key: str, known: tuple[str, ...], path: pathlib.Path
) -> Iterator[Mapping[str, Any]]:
    """The parts under `key`, out of their sequences."""
    waiting, parts = [found.get(key)], 0
    while waiting:
        part = waiting.pop(0)
        parts += 1
        if part is None and parts == 1:
            return
        if parts > _PARTS:
            raise _broken(path, f"its {key} has more than {_PARTS} parts")
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise _broken(path, f"its {key} has {errors.short(part)}, which names no type")
        if part["type"] == "Sequence":
            inner = part.get(_NESTED[key])
            if not isinstance(inner, list):
                raise _broken(path, f"a sequence in its {key} is no list")
            waiting = [*inner, *waiting]
        elif part["type"] in known:
            yield part
        else:
            raise _other(path, f"the {key} {errors.short(part['type'])}")


def _check_part(part: Mapping[str, Any], path: pathlib.Path) -> None:
    kind = part["type"]
    where = f"{kind} of {path}"
    for key in _FLAGS:
        if type(part.get(key, True)) is not bool:
            raise _broken(path, f"{key} of {kind} must be true or false, not {errors.short(part[key])}")
    for key in ("prepend", "content", "replacement"):
        text = part.get(key, "")
        if not isinstance(text, str) or len(text) > _CONTENT:
            raise _broken(path, f"{key} of {kind} must be a text of at most {_CONTENT} characters")
    for key in ("start", "stop"):
        if type(part.get(key, 0)) is not int or not 0 <= part.get(key, 0) <= _CONTENT:
            raise _broken(path, f"{key} of {kind} must be a number from 0 to {_CONTENT}")
    if kind == "Metaspace" and (
        part.get("prepend_scheme", "first") not in _SCHEMES or len(part.get("replacement", "")) != 1
    ):
        raise _broken(path, "Metaspace must have one replacement and a prepend_scheme of first, always or never")
    if kind in ("Split", "Punctuation") and part.get("behavior", "Isolated") not in _BEHAVIORS:
        raise _broken(path, f"behavior of {kind} is {errors.short(part.get('behavior'))}")
    if kind in ("Split", "Replace"):
        _check_pattern(part.get("pattern"), where)
    if kind == "Precompiled" and not piece_model.is_known_map(part.get("precompiled_charsmap")):
        raise _broken(path, "its normalization is not one of sentencepiece's own")


def _check_pattern(pattern: Any, where: str) -> None:
    """A text, or a regular expression that repeats no repetition: those can take exponential time."""
    (kind, text), *more = pattern.items() if isinstance(pattern, Mapping) and pattern else [(None, None)]
    if more or kind not in ("String", "Regex") or not isinstance(text, str) or not 0 < len(text) <= _PATTERN:
        raise errors.UserError(f"{where}: the pattern must be a text of 1 to {_PATTERN} characters: copy it again")
    if kind == "Regex" and _repeats_repetition(text):
        raise errors.UserError(f"{where}: the pattern {errors.short(text)} repeats a repetition, which may never end")


def _repeats_repetition(pattern: str) -> bool:
    """Whether a group that holds an open-ended repetition is itself repeated so, or refers to another group."""
    plain = re.sub(
        r"\\[pP]\{[^}]*\}|\\[1-9gk]|\\.", lambda m: "\0" if m[0][1:2] in tuple("123456789gk") else "x", pattern
    )
    plain = re.sub(r"\[\^?\]?(?:[^\[\]]|\[[^\[\]]*\])*\]", "x", plain)
    groups, at = [False], 0
    while at < len(plain):
        mark = _OPEN_ENDED.match(plain, at)
        if plain[at] == "(":
            groups.append(False)
        elif plain[at] == ")" and len(groups) > 1:
            holds = groups.pop()
            if holds and _OPEN_ENDED.match(plain, at + 1):
                return True
            groups[-1] |= holds
        elif mark and not re.fullmatch(r"\{\d*,\d+\}", mark[0]):
            groups[-1] = True
        at += 1
    return "\0" in plain


def _growth(part: Mapping[str, Any]) -> float:
    """How much longer a replacement can make a text; a regular expression may match no character at all."""
    if part["type"] != "Replace":
        return 1.0
    content, text = len(part.get("content", "")), part["pattern"].get("String")
    return 1.0 + content if text is None else max(1.0, content / len(text))


def _check_bpe(model: Mapping[str, Any], of_bytes: bool, path: pathlib.Path) -> None:
    pieces = model.get("vocab")
    if not isinstance(pieces, Mapping) or not 0 < len(pieces) <= limits.MODEL_SIZE:
        raise _broken(path, f"it has no vocabulary of 1 to {limits.MODEL_SIZE:,} pieces")
    ids = pieces.values()
    if not all(type(i) is int and 0 <= i < limits.MODEL_SIZE for i in ids) or len(set(ids)) < len(ids) or "" in pieces:
        raise _broken(path, f"the ids of its pieces must be distinct numbers from 0 to {limits.MODEL_SIZE - 1:,}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _other(path, f"a model with {key} {errors.short(model[key])}")
    for key in ("fuse_unk", "byte_fallback", "ignore_merges"):
        if type(model.get(key, False)) is not bool:
            raise _broken(path, f"{key} must be true or false, not {errors.short(model[key])}")
    unknown = model.get("unk_token")
    if unknown is not None and (not isinstance(unknown, str) or unknown not in pieces):
        raise _broken(path, f"its unknown token {errors.short(unknown)} is not one of its pieces")
    complete = (of_bytes and pieces.keys() >= _byte_characters(_WRITTEN)) or (
        model.get("byte_fallback") is True and pieces.keys() >= BYTES
    )
    if unknown is None and not complete:
        raise _broken(path, "it would drop characters: it has neither all bytes of texts nor an unknown token")
    _check_merges(model.get("merges"), pieces, path)


def _check_merges(merges: Any, pieces: Mapping[str, int], path: pathlib.Path) -> None:
    if not isinstance(merges, list):
        raise _broken(path, "it has no list of merges")
    for merge in merges:
        try:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            known = left in pieces and right in pieces and left + right in pieces
        except (TypeError, ValueError):
            raise _broken(path, f"{errors.short(merge)} is not a merge of two pieces") from None
        if not known or isinstance(merge, dict):
            raise _broken(path, f"merges {errors.short(merge)}, which are not its pieces")


def _check_unigram(model: Mapping[str, Any], path: pathlib.Path) -> None:
    pieces, unknown = model.get("vocab"), model.get("unk_id")
    if not isinstance(pieces, list) or not 0 < len(pieces) <= limits.MODEL_SIZE:
        raise _broken(path, f"it has no vocabulary of 1 to {limits.MODEL_SIZE:,} pieces")
    for piece in pieces:
        if not isinstance(piece, list) or len(piece) != 2 or not isinstance(piece[0], str) or not piece[0]:
            raise _broken(path, f"{errors.short(piece)} is not a piece and its score")
        if type(piece[1]) not in (int, float) or not abs(piece[1]) <= limits.LARGEST:
            raise _broken(path, f"the score of {errors.short(piece[0])} is {errors.short(piece[1])}")
    texts = {piece[0] for piece in pieces}
    if len(texts) < len(pieces):
        raise _broken(path, "a piece is there twice")
    if type(model.get("byte_fallback", False)) is not bool:
        raise _broken(path, f"byte_fallback must be true or false, not {errors.short(model['byte_fallback'])}")
    if unknown is not None and (type(unknown) is not int or not 0 <= unknown < len(pieces)):
        raise _broken(path, f"its unknown token {errors.short(unknown)} is not the number of a piece")
    if unknown is None and not (model.get("byte_fallback") is True and texts >= BYTES):
        raise _broken(path, "it has neither all bytes nor an unknown token")


def _check_added(entries: Any, path: pathlib.Path) -> None:
    if not isinstance(entries, list | None):
        raise _broken(path, "added_tokens is no list")
    for entry in entries or ():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), str) or not entry["content"]:
            raise _broken(path, "an added token without text")
        id_, shown = entry.get("id"), errors.short(entry["content"])
        if type(id_) is not int or not 0 <= id_ <= added_tokens.MAX_ID:
            raise _broken(path, f"the id of the added token {shown} is {errors.short(id_)}")
        for key in ("special", "lstrip", "rstrip", "single_word", "normalized"):
            if type(entry.get(key, False)) is not bool:
                raise _broken(path, f"{key} of the added token {shown} must be true or false")


def _begin(processor: Any, path: pathlib.Path, depth: int = 0) -> int | None:
    """The id that a post-processor puts in front of a text."""
    kind = processor.get("type") if isinstance(processor, Mapping) else None
    if processor is None or kind == "ByteLevel":
        return None
    if kind == "Sequence" and isinstance(inner := processor.get("processors"), list) and not depth:
        begins = [_begin(one, path, depth + 1) for one in inner[:_PARTS]]
        return next((begin for begin in begins if begin is not None), None)
    if kind != "TemplateProcessing":
        raise _other(path, f"the post_processor {errors.short(kind)}")
    single, known = processor.get("single"), processor.get("special_tokens")
    names = []
    for item in single if isinstance(single, list) else ():
        special = item.get("SpecialToken") if isinstance(item, Mapping) else None
        names.append(special.get("id", 0) if isinstance(special, Mapping) else None)
    if None not in names:
        raise _broken(path, "its post_processor has no place for the text")
    before = names[: names.index(None)]
    if not before:
        return None
    entry = known.get(before[0]) if isinstance(known, Mapping) and isinstance(before[0], str) else None
    ids = entry.get("ids") if isinstance(entry, Mapping) else None
    if len(before) > 1 or not isinstance(ids, list) or len(ids) != 1 or type(ids[0]) is not int:
        raise _other(path, f"a post_processor that puts {errors.short(before)} in front of a text")
    return ids[0]


def _byte_characters(of: frozenset[int]) -> frozenset[str]:
    """The characters that byte-level tokenizers write for these bytes: printable ones for themselves."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    written = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return frozenset(written[byte] for byte in of)


def _other(path: pathlib.Path, what: str) -> errors.UserError:
    return piece_json.OtherKindError(
        f"{path}: a tokenizer with {what} is of a kind that is not read; BPE and Unigram of language models are"
    )


def _broken(path: pathlib.Path, why: str) -> errors.UserError:
    return errors.UserError(f"{path}: {why}: copy it again")
