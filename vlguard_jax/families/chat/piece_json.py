"""Rebuilds the sentencepiece model of a `tokenizer.json`, the only vocabulary file that today's transformers saves.

A tokenizer of the Llama-2 family is a sentencepiece BPE with byte fallback. Its tokenizer.json has the pieces by id and
the merges in the order of their scores, so that the rebuilt model gives the ids of the original tokenizer.model (the
inverse of transformers' convert_slow_tokenizer.py, SentencePieceExtractor).
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import hashlib
import pathlib
import re
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.families.chat import piece_model
from vlguard_jax.families.chat import words

_BYTES = frozenset(f"<0x{i:02X}>" for i in range(256))
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # SentencePiece.Type of sentencepiece_model.proto
_BPE = 2  # TrainerSpec.ModelType
# Llama-2's vocabulary (Vicuna's and LLaVA's), as sha256 of its pieces, a line each. Its runs of spaces have this score,
# the lowest of all. transformers 5 makes a tokenizer.json of a tokenizer.model without looking at scores
# (tokenization_utils_base.py, generate_merges) and merges such runs first; files of 4.x merge them last.
_LLAMA_2 = "0f97b4337921e6e7e9b4620fc73338ee570aecd3c16038bc23870a887e995045"
_RUN_OF_SPACES = -1e9


class OtherKindError(errors.UserError):
    """A tokenizer.json that is not a sentencepiece BPE."""


@dataclasses.dataclass(frozen=True)
class Pieces:
    """data, spec: as from `piece_model.read`. legacy: transformers' flag, as the file implies it. added: added tokens,
    {id: entry}."""

    data: bytes
    spec: Any
    legacy: bool
    added: Mapping[str, Mapping[str, Any]]


def read(path: pathlib.Path, found: Mapping[str, Any]) -> Pieces:
    """The sentencepiece model of the `tokenizer.json` at `path`, which holds `found`.

    Raises:
      OtherKindError: a tokenizer of another kind (byte-level BPE, Unigram, ...).
      UserError: it is broken: ids are not consecutive, or merges have unknown pieces.
    """
    model = found.get("model")
    if not isinstance(model, Mapping) or not _is_bpe(model) or (legacy := _legacy(found)) is None:
        raise OtherKindError(
            f"{path}: a tokenizer of another kind than Llama-2's (a sentencepiece BPE with byte fallback) is not read;"
            " copy the tokenizer.model of the model that this one was trained from, if it has one"
        )
    pieces, unknown = _pieces(model["vocab"], path), str(model.get("unk_token") or "<unk>")
    added = _added(found.get("added_tokens") or [], path)
    scores = _scores(model.get("merges"), pieces, path)
    control = {entry["content"] for entry in added.values() if entry.get("special")}
    made = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    for text in pieces:
        kind = _UNKNOWN if text == unknown else _BYTE if text in _BYTES else _CONTROL if text in control else _NORMAL
        made.pieces.add(piece=text, score=scores.get(text, 0.0), type=kind)
    made.trainer_spec.model_type, made.trainer_spec.byte_fallback = _BPE, {*pieces} >= _BYTES
    made.trainer_spec.vocab_size, made.trainer_spec.unk_piece = len(pieces), unknown
    made.trainer_spec.unk_id = pieces.index(unknown) if unknown in pieces else -1
    made.normalizer_spec.name, made.normalizer_spec.add_dummy_prefix = "identity", True
    made.normalizer_spec.remove_extra_whitespaces, made.normalizer_spec.escape_whitespaces = False, True
    if why := piece_model.fault(made):
        raise errors.UserError(f"{path}: {why}: copy it again")
    return Pieces(made.SerializeToString(), made, legacy, added)


def _is_bpe(model: Mapping[str, Any]) -> bool:
    vocabulary = model.get("vocab")
    odd = [model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")]
    if model.get("type", "BPE") != "BPE" or any(odd) or not isinstance(vocabulary, Mapping):
        return False
    held = sum(byte in vocabulary for byte in _BYTES)  # a small model may have none
    return words.SPACE_PIECE in vocabulary and (held == 0 or (held == 256 and model.get("byte_fallback") is True))


def _legacy(found: Mapping[str, Any]) -> bool | None:
    """transformers' flag `legacy`, from where the tokenizer inserts a space; None for another kind of tokenizer.

    True: before the text and after each special token (4.x: a normalizer). False: only before the text. transformers 5
    saves the tokenizer of a LLaVA folder as one that inserts no space; it does not record what the model was trained
    with, so tokenizer_config.json decides, as without this file (True by default).
    """
    normalizer, splitter = found.get("normalizer"), found.get("pre_tokenizer")
    space: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": words.SPACE_PIECE}
    prefix: dict[str, Any] = {"type": "Prepend", "prepend": words.SPACE_PIECE}
    spaces = [{"type": "Sequence", "normalizers": some} for some in ([prefix, space], [space])]
    if splitter is None and normalizer in spaces:
        return True
    if normalizer is not None or not isinstance(splitter, Mapping) or splitter.get("type") != "Metaspace":
        return None
    if splitter.get("replacement") != words.SPACE_PIECE or splitter.get("split") is not False:
        return None
    return {"always": True, "first": False}.get(str(splitter.get("prepend_scheme")))


def _pieces(vocabulary: Mapping[str, Any], path: pathlib.Path) -> list[str]:
    """The texts of the pieces in the order of their ids."""
    if len(vocabulary) > limits.MODEL_SIZE:
        raise errors.UserError(
            f"{path}: it has {len(vocabulary):,} pieces, at most {limits.MODEL_SIZE:,} are read: copy it again"
        )
    by_id = {id_: text for text, id_ in vocabulary.items() if type(id_) is int}
    if sorted(by_id) != list(range(len(vocabulary))) or "" in vocabulary:
        raise errors.UserError(f"{path}: the ids of its pieces are not consecutive from 0: copy it again")
    return [by_id[i] for i in range(len(by_id))]


def _added(entries: Any, path: pathlib.Path) -> dict[str, Mapping[str, Any]]:
    """{id: entry} as in `added_tokens_decoder`."""
    found = {}
    for entry in entries if isinstance(entries, list) else [None]:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), str):
            raise errors.UserError(f"{path}: an added token without text: copy it again")
        found[str(entry.get("id"))] = entry
    return found


def _scores(merges: Any, pieces: list[str], path: pathlib.Path) -> dict[str, float]:
    """Scores of the pieces: first those made by merges, from 0 down in their order, then the others by id.

    If the merges come from scores, all merges that make one piece are consecutive; runs of spaces, which Llama-2 gives
    one score, are sorted by their parts' lengths. If they do not, scores cannot express their order.
    """
    known, scores, last, equal = set(pieces), dict[str, float](), "", False
    runs = {text for text in pieces if not text.strip(words.SPACE_PIECE)}
    for merge in merges if isinstance(merges, list) else [None]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            raise errors.UserError(f"{path}: {errors.short(merge)} is not a merge of two pieces: copy it again")
        made = pair[0] + pair[1]
        if not {*pair, made} <= known:
            raise errors.UserError(f"{path}: merges {errors.short(merge)}, which are not its pieces: copy it again")
        if made != last and made in scores:
            if made not in runs:
                raise OtherKindError(
                    f"{path}: its merges do not come from scores, as those of a sentencepiece BPE do, and are not read"
                )
            equal = True
        scores.setdefault(made, -float(len(scores)))
        last = made
    if equal or hashlib.sha256("\n".join(pieces).encode()).hexdigest() == _LLAMA_2:
        scores |= dict.fromkeys(runs, _RUN_OF_SPACES)
    plain = (text for text in pieces if not re.fullmatch("<.+>", text))
    for text in plain:
        scores.setdefault(text, -float(len(scores)))
    return scores
