"""Hostile tokenizer folders: a damaged sentencepiece model, added tokens with ids that no model has."""

from __future__ import annotations

import json
import math
import pathlib
import random
import struct

from sentencepiece import sentencepiece_model_pb2

from tests.data import stand
from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

TEXT = "The quick brown fox. What is this?"
ADDED = {"<extra>": 420, "<more>": 421}
CONFIG = {
    "bos_token": "<s>",
    "eos_token": {"content": "</s>", "lstrip": False},
    "unk_token": "<unk>",
    "legacy": False,
    "add_bos_token": True,
    "add_eos_token": False,
    "added_tokens_decoder": {
        "1": {"content": "<s>", "special": True},
        "420": {"content": "<extra>", "special": True, "lstrip": False, "single_word": False},
    },
    "model_max_length": 2048,
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<extra>"]}
NO_MODELS = (b"", b"\0" * 999, b"\xff" * 999, b"version https://git-lfs.github.com/spec/v1\n")
FLAGS = ("legacy", "lstrip", "special", "single_word")
NO_FLAGS = ("false", "true", 0, 1, "", [], {})
BAD_IDS = (-1, -5, 10**6, 1 << 40, 1.5, "7", True, None, [], {"id": 7})


def _ids(folder: pathlib.Path) -> object:
    found = tokenizer_lib.load_tokenizer(folder)
    ids = found.encode(f"{TEXT} <extra>")
    assert all(type(i) is int and 0 <= i < 1 << 20 for i in ids), "ids that index nothing"
    return found.decode(ids)


def _other_model(rng: random.Random) -> tuple[str, bytes]:
    """A protobuf that parses, with one thing in it that no model has."""
    model = sentencepiece_model_pb2.ModelProto.FromString(stand.model_bytes())  # type: ignore[attr-defined]
    kind = rng.choice(
        ["no trainer", "no normalizer", "score", "twice", "empty piece", "byte", "table", "denormal", "unknown"]
    )
    one, other = rng.sample(range(300, len(model.pieces)), 2)
    if kind in ("no trainer", "no normalizer"):
        model.ClearField("trainer_spec" if kind == "no trainer" else "normalizer_spec")
    elif kind == "score":
        model.pieces[one].score = rng.choice([math.nan, math.inf, -math.inf])
    elif kind in ("twice", "empty piece"):
        model.pieces[one].piece = model.pieces[other].piece if kind == "twice" else ""
    elif kind == "byte":
        model.pieces[rng.randrange(3, 259)].piece = rng.choice(["<0x>", "<0xGG>", "<0x100>", "x"])
    elif kind == "unknown":
        model.pieces[0].type = 1
        for i in rng.choice([(), (one, other)]):
            model.pieces[i].type = 2
    else:
        table = struct.pack("<I", rng.choice([4, 1024, 1 << 31])) + rng.randbytes(rng.choice([3, 1024, 4096]))
        (model.normalizer_spec if kind == "table" else model.denormalizer_spec).precompiled_charsmap = table
    return kind, model.SerializeToString()


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A folder with one file damaged."""
    texts = {"added_tokens": ADDED, "tokenizer_config": CONFIG, "special_tokens_map": SPECIAL}
    model = bytearray(stand.model_bytes())
    kind = rng.choice(["sound", "flipped", "truncated", "empty", "other model", "flag", "id", "document", "document"])
    right: object = sandbox.Anything
    files = {name: json.dumps(value).encode() for name, value in texts.items()}
    if kind == "flipped":
        for _ in range(rng.choice([1, 3, 20])):
            model[rng.randrange(len(model))] = rng.randrange(256)
    elif kind == "truncated":
        del model[rng.randrange(len(model)) :]
    elif kind == "empty":
        model, right = (
            bytearray(rng.choice([b"", b"\0" * 999, b"\xff" * 999, b"version https://git-lfs.github.com/spec/v1\n"])),
            sandbox.Nothing,
        )
    elif kind == "other model":
        what, data = _other_model(rng)
        kind, model, right = f"model: {what}", bytearray(data), sandbox.Nothing
    elif kind == "flag":
        path = rng.choice([p for p in documents.places(CONFIG) if p and p[-1] in FLAGS])
        files["tokenizer_config"] = documents.dumps(documents.put(CONFIG, path, rng.choice(NO_FLAGS)))
        kind, right = f"{path[-1]} is not true or false", sandbox.Nothing
    elif kind == "id":
        bad = rng.choice(BAD_IDS)
        files["added_tokens"] = json.dumps(ADDED | {rng.choice(["bread", "<extra>"]): bad}).encode()
        kind, right = "id of an added token", sandbox.Nothing
    elif kind == "document":
        name = rng.choice(list(texts))
        what, files[name] = documents.change(rng, texts[name])
        kind, right = f"{name}: {what}", sandbox.Nothing if what.startswith(documents.BROKEN) else sandbox.Anything
    (folder / "tokenizer.model").write_bytes(model)
    for name, data in files.items():
        (folder / f"{name}.json").write_bytes(data)
    if kind == "sound":
        return sandbox.Trial(kind, lambda: bool(_ids(folder)), True, must_read=True)
    return sandbox.Trial(kind, lambda: _ids(folder), right)
