"""Hostile tokenizer folders: a damaged sentencepiece model, added tokens with ids that no model has."""

from __future__ import annotations

import json
import pathlib
import random

from tests.data import stand
from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax.data import tokenizer as tokenizer_lib

TEXT = "The quick brown fox. What is this?"
ADDED = {"<extra>": 420, "<more>": 421}
CONFIG = {
    "bos_token": "<s>",
    "eos_token": {"content": "</s>", "lstrip": False},
    "unk_token": "<unk>",
    "legacy": False,
    "add_bos_token": True,
    "add_eos_token": False,
    "added_tokens_decoder": {"1": {"content": "<s>", "special": True}, "420": {"content": "<extra>", "special": True}},
    "model_max_length": 2048,
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<extra>"]}
NO_MODELS = (b"", b"\0" * 999, b"\xff" * 999, b"version https://git-lfs.github.com/spec/v1\n")
BAD_IDS = (-1, -5, 10**6, 1 << 40, 1.5, "7", True, None, [], {"id": 7})


def _ids(folder: pathlib.Path) -> object:
    found = tokenizer_lib.load_tokenizer(folder)
    ids = found.encode(f"{TEXT} <extra>")
    assert all(type(i) is int and 0 <= i < 1 << 20 for i in ids), "ids that index nothing"
    return found.decode(ids)


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A folder with one file damaged."""
    texts = {"added_tokens": ADDED, "tokenizer_config": CONFIG, "special_tokens_map": SPECIAL}
    model = bytearray(stand.model_bytes())
    kind = rng.choice(["sound", "flipped", "truncated", "empty", "id", "document", "document"])
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
