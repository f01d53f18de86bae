"""Reads sentencepiece models, all of which are checked here in Python before native code parses them."""

from __future__ import annotations

import base64
import collections
import functools
import math
import pathlib
import re
from typing import Any

from google.protobuf import message
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits

_BYTE = re.compile("<0x[0-9A-F]{2}>")
_BYTE_KIND, _UNKNOWN_KIND = 6, 2  # SentencePiece.Type of sentencepiece_model.proto


def read(path: pathlib.Path) -> tuple[bytes, Any]:
    """(content, the same as a protobuf ModelProto) of a `tokenizer.model`.

    Raises:
      UserError: as files.read_bytes; not a sentencepiece model, a truncated one, or malformed pieces.
    """
    data = files.read_bytes(path, limits.TOKENIZER_BYTES)
    try:
        model = sentencepiece_model_pb2.ModelProto.FromString(data)  # type: ignore[attr-defined]
        reason = fault(model)
    except message.DecodeError as e:
        reason = str(e)
    if reason:
        raise refusal(path, data, reason)
    return data, model


def processor(data: bytes) -> sentencepiece.SentencePieceProcessor:
    """The processor that encodes and decodes with a checked model.

    Raises:
      RuntimeError: sentencepiece refuses it.
    """
    made = sentencepiece.SentencePieceProcessor()
    made.LoadFromSerializedProto(data)
    return made


def refusal(path: pathlib.Path, data: bytes, reason: str) -> errors.UserError:
    """The error to raise where `data`, the content of `path`, is not a model."""
    why = files.looks_like(data[: files.HEAD]) or f"copy it again ({errors.short(reason)})"
    return errors.UserError(f"{path} is not a sentencepiece model: {why}")


def fault(model: Any) -> str:
    """Why a parsed model is not valid; "" if it is."""
    if not model.pieces or not model.HasField("trainer_spec") or not model.HasField("normalizer_spec"):
        return "it is cut off"
    if len(model.pieces) > limits.MODEL_SIZE:
        return f"it has {len(model.pieces):,} pieces, at most {limits.MODEL_SIZE:,} are read"
    for spec in (model.normalizer_spec, model.denormalizer_spec):
        # native code does not check its offsets
        if spec.precompiled_charsmap and spec.precompiled_charsmap not in _known_maps():
            return f"its normalization {errors.short(spec.name)} is not one of sentencepiece's own"
    texts, kinds = [piece.piece for piece in model.pieces], [piece.type for piece in model.pieces]
    for i, text in enumerate(texts):
        if type(text) is not str or not text:  # protobuf returns bytes that are not UTF-8 unchanged
            return f"piece {i} is not text: {errors.short(text)}"
    if len(set(texts)) < len(texts):
        return f"a piece is there twice: {errors.short(collections.Counter(texts).most_common(1)[0][0])}"
    if not math.isfinite(math.fsum(piece.score for piece in model.pieces)):
        return "the score of a piece is not finite"
    odd = [text for text, kind in zip(texts, kinds, strict=True) if kind == _BYTE_KIND and not _BYTE.fullmatch(text)]
    if odd:
        return f"a piece is not a byte: {errors.short(odd[0])}"
    unknown = kinds.count(_UNKNOWN_KIND)
    return "" if unknown == 1 else f"it has {unknown} unknown tokens, not one"


def is_of_llama(model: Any) -> bool:
    """Whether a parsed model is of the Llama-2 family: a BPE that puts a space in front of the text."""
    return model.trainer_spec.model_type == model.trainer_spec.BPE and model.normalizer_spec.add_dummy_prefix


def is_known_map(text: Any) -> bool:
    """Whether `text` is, in base64, the table of a normalization that ships with sentencepiece."""
    try:
        return base64.b64decode(text, validate=True) in _known_maps()
    except (TypeError, ValueError):
        return False


@functools.cache
def _known_maps() -> set[bytes]:
    """Tables of the normalizations that ship with sentencepiece."""
    made = (
        sentencepiece.SentencePieceNormalizer(rule_name=name) for name in ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")
    )
    parse = sentencepiece_model_pb2.ModelProto.FromString  # type: ignore[attr-defined]
    return {parse(one.serialized_model_proto()).normalizer_spec.precompiled_charsmap for one in made}
