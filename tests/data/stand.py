"""Harmless stand-ins for the tests of data/: a small tokenizer trained on the spot, records, pictures, mixtures."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import pathlib
import zlib

import numpy as np
from PIL import Image
import sentencepiece

from vlguard_jax import types
from vlguard_jax.data import images
from vlguard_jax.families import table
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.families.llava import config as llava_config

WORDS = (
    "The quick brown fox jumps over the lazy dog. What is this? A flyer. USER: hi ASSISTANT: no. Name three"
    " fruits: apples, pears."
)


@functools.cache
def model_bytes() -> bytes:
    """A Llama-style sentencepiece model: BPE, byte fallback, unk 0, bos 1, eos 2."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS, templates.TEMPLATES["vicuna_v1"].system] * 3),
        model_writer=out,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()


def sees(side: int = 28, patch: int = 14) -> llava_config.LlavaConfig:
    """The sizes of a LLaVA-1.5 model whose pictures have this side, of (side // patch)^2 slots each."""
    published = table.PRESETS["llava-v1.5-7b"]
    assert isinstance(published, llava_config.LlavaConfig)
    vision = dataclasses.replace(published.vision, image_size=side, patch_size=patch)
    return dataclasses.replace(published, vision=vision)


def blind() -> llama_config.LlamaConfig:
    """The sizes of a language model."""
    return llama_config.LlamaConfig(sees().text)


def write_tokenizer(folder: pathlib.Path, added: dict | None = None, **config) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if added:
        (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


def make_tokenizer(folder: pathlib.Path, added: dict | None = None, **config) -> tokenizer_lib.Tokenizer:
    return tokenizer_lib.load_tokenizer(write_tokenizer(folder, added, **config))


def record(*texts: str, images: tuple[str, ...] = (), id: str = "r") -> types.Record:
    turns = tuple(types.Turn(("human", "gpt")[i % 2], text) for i, text in enumerate(texts))
    return types.Record(id=id, turns=turns, images=images)


def as_json(record: types.Record) -> dict:
    value = {"id": record.id, "conversations": [{"from": turn.role, "value": turn.text} for turn in record.turns]}
    if record.images:
        value["image"] = record.images[0] if len(record.images) == 1 else list(record.images)
    return value


def write_records(path: pathlib.Path, records: list[types.Record]) -> str:
    path.write_text(json.dumps([as_json(r) for r in records]))
    return str(path)


def write_picture(path: pathlib.Path, size: tuple[int, int] = (20, 12), seed: int = 0) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def vlguard_value(i: int, safe: bool) -> dict:
    pairs = [{"instruction": f"Ask {i}?", "response": f"Answer {i}."}]
    if safe:
        pairs = [
            {f"{kind}_instruction": f"Ask {kind} {i}?", "response": f"Answer {kind} {i}."}
            for kind in ("safe", "unsafe")
        ]
    extra = {} if safe else {"harmful_category": "privacy", "harmful_subcategory": "personal data"}
    return {"id": f"v{i}", "image": f"set/{i}.{'png' if i % 2 else 'jpg'}", "safe": safe, "instr-resp": pairs, **extra}


def encoded(picture: Image.Image, format_: str = "PNG", **options) -> bytes:
    """The file of a picture."""
    out = io.BytesIO()
    picture.save(out, format_, **options)
    return out.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def bomb(width: int, height: int) -> bytes:
    """A small file that says it is a picture of this size."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


def fault(content: bytes, mode: str = "pad", side: int = 8, *, decode: bool = False) -> str:
    """What the check of pictures finds wrong with a file for a LLaVA-1.5 model, "" if nothing."""
    try:
        images.look(io.BytesIO(content), sees(side), mode, decode=decode)
    except images.Fault as e:
        return str(e)
    return ""
