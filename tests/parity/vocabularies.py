"""Tokenizer folders of published models, rebuilt from llama.cpp's vocabulary files, with its test vectors.

The vocabularies are those of the models; how a text is split before is written here as in their tokenizer.json files.
The vectors are the ids of the models' own Hugging Face tokenizers, without a begin token.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest
from sentencepiece import sentencepiece_model_pb2

from tests.parity import assets

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, their kinds, and merges or scores."""

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]


def vectors(name: str) -> list[tuple[str, list[int]]]:
    """(text, ids) of llama.cpp's tests."""
    inputs, outputs = (_file(f"{name}.gguf.{end}").read_text(encoding="utf-8") for end in ("inp", "out"))
    texts = inputs.split("\n__ggml_vocab_test__\n")
    ids = [[int(id_) for id_ in line.split()] for line in outputs.split("\n")]
    return list(zip(texts, ids[: len(texts)], strict=True))


def write_spm(name: str, folder: pathlib.Path) -> pathlib.Path:
    """A tokenizer.model, as that of Llama-2."""
    found = read(name)
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    for token, kind, score in zip(found.tokens, found.kinds, found.scores, strict=True):
        model.pieces.add(piece=token, type=kind, score=score)
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = model.trainer_spec.BPE, True
    model.normalizer_spec.name, model.normalizer_spec.remove_extra_whitespaces = "identity", False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": True}))
    return folder


def write_llama_bpe(folder: pathlib.Path) -> pathlib.Path:
    """Llama-3's: digits in threes, a begin token."""
    name = "<|begin_of_text|>"
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [128000], "tokens": [name]}},
    }
    processor = {"type": "Sequence", "processors": [BYTES | {"trim_offsets": False}, template]}
    parts = {"pre_tokenizer": _split(WORDS + r"\p{N}{1,3}" + REST), "post_processor": processor}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": name, "eos_token": "<|end_of_text|>"}
    return _write("llama-bpe", folder, parts, config, {"ignore_merges": True})


def write_qwen2(folder: pathlib.Path) -> pathlib.Path:
    """Qwen2's: single digits, composed characters, no begin token."""
    parts = {"normalizer": {"type": "NFC"}, "pre_tokenizer": _split(WORDS + r"\p{N}" + REST)}
    parts["post_processor"] = BYTES | {"trim_offsets": False, "use_regex": False}
    config = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>"}
    return _write("qwen2", folder, parts, config | {"pad_token": "<|endoftext|>"}, {})


def write_gpt2(folder: pathlib.Path) -> pathlib.Path:
    """GPT-2's: the first byte-level BPE."""
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return _write("gpt-2", folder, {"pre_tokenizer": BYTES}, {"tokenizer_class": "GPT2Tokenizer"} | names, {})


def write_gemma(folder: pathlib.Path) -> pathlib.Path:
    """Gemma's: characters, bytes as the fallback, spaces as pieces."""
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    shown = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    parts = {
        "normalizer": space,
        "pre_tokenizer": _splitter({"String": " "}, "MergedWithPrevious"),
        "decoder": {"type": "Sequence", "decoders": [shown, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    }
    names = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "unk", "pad")}
    model = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    return _write("gemma-4", folder, parts, {"tokenizer_class": "GemmaTokenizer"} | names, model)


def read(name: str) -> Vocabulary:
    """A vocabulary file of llama.cpp, without the rows that only pad it; skips without the package gguf."""
    gguf = pytest.importorskip("gguf")
    fields = gguf.GGUFReader(_file(f"{name}.gguf")).fields
    found = {
        key: fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in fields else []
        for key in ("tokens", "token_type", "merges", "scores")
    }
    tokens, kinds = found["tokens"], found["token_type"]
    while tokens[-1].startswith("[PAD"):
        tokens, kinds = tokens[:-1], kinds[:-1]
    return Vocabulary(tokens, kinds, found["merges"], found["scores"])


def _write(
    name: str, folder: pathlib.Path, parts: dict[str, Any], config: dict[str, Any], model: dict[str, Any]
) -> pathlib.Path:
    found = read(name)
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    special = {i for i, kind in enumerate(found.kinds) if kind in (CONTROL, USER)}
    added = [
        {"id": i, "content": found.tokens[i], "special": found.kinds[i] == CONTROL, **flags} for i in sorted(special)
    ]
    behind = min((i for i in special if special >= {*range(i, len(found.tokens))}), default=len(found.tokens))
    vocab = {token: i for i, token in enumerate(found.tokens[:behind])}
    whole = {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False} | model
    whole |= {"vocab": vocab, "merges": [merge.split(" ") for merge in found.merges]}
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor"))
    file = {"version": "1.0", **empty, "decoder": BYTES, **parts, "added_tokens": added, "model": whole}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _split(pattern: str) -> dict[str, Any]:
    bytes_ = BYTES | {"use_regex": False}
    return {"type": "Sequence", "pretokenizers": [_splitter({"Regex": pattern}, "Isolated"), bytes_]}


def _splitter(pattern: dict[str, str], behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False}


def _file(name: str) -> pathlib.Path:
    version = assets.PACKAGES["llama-cpp-python"].version
    return assets.member("llama-cpp-python", f"llama_cpp_python-{version}/vendor/llama.cpp/models/ggml-vocab-{name}")
