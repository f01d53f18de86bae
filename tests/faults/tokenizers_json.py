"""Hostile tokenizer.json folders of every kind: parts of other kinds, patterns and replacements that never end, pieces
and ids that contradict each other."""

from __future__ import annotations

from collections.abc import Callable
import copy
import functools
import json
import pathlib
import random
import tempfile
from typing import Any

from tests.families.chat import json_folders
from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

TEXT = "The quick brown fox. What is this? aaaaaaaaaaaaaaaaaaaaaaaa! 12345 日é\n\n  <|end|>x" + "a" * 3000
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
LLAMA: dict[str, Any] = {"normalizer": None, "pre_tokenizer": METASPACE}
PATTERNS = (
    "(a+)+$",
    "(?:a|aa)*$",
    "(a*)*b",
    "a*a*a*a*a*a*$",
    r"(.*)\1\1\1x",
    "(?:(?:a{1,})+){1,}$",
    "(",
    "\\",
    "[",
    "(?<=a+)b",
)
PARTS: tuple[Any, ...] = (
    *(
        {"type": kind}
        for kind in ("NFC", "Nmt", "BertNormalizer", "ByteLevel", "Metaspace", "Sequence", "Fuse", "Strip")
    ),
    *({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in PATTERNS),
    *({"type": "Replace", "pattern": {"Regex": p}, "content": "xx"} for p in (*PATTERNS, "", "x*")),
    {"type": "Replace", "pattern": {"String": ""}, "content": "x"},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10**6},
    {"type": "Precompiled", "precompiled_charsmap": "AAQAAAAAAAAAAAAA"},
    {"type": "Metaspace", "replacement": "▁▁", "prepend_scheme": "first"},
    {"type": "Strip", "content": " ", "start": 1 << 60, "stop": -1},
    {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "B", "type_id": 0}}],
        "pair": [],
        "special_tokens": {},
    },
)
GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@functools.cache
def sound(kind: str) -> dict[str, Any]:
    """The tokenizer.json of a kind; "llama": one of the Llama-2 family."""
    with tempfile.TemporaryDirectory() as folder:
        made = json_folders.write(pathlib.Path(folder), "gemma" if kind == "llama" else kind)
        found: dict[str, Any] = json.loads((made / "tokenizer.json").read_text())
    return found | (LLAMA if kind == "llama" else {})


def _other_part(rng: random.Random, found: dict[str, Any]) -> str:
    key = rng.choice(["normalizer", "pre_tokenizer", "decoder", "post_processor"])
    found[key] = rng.choice([*PARTS, *documents.ODD])
    if rng.random() < 0.3:
        found[key] = {
            "type": "Sequence",
            f"{key.replace('_', '')}s": [rng.choice(PARTS) for _ in range(rng.choice([1, 3, 99]))],
        }
    return key


def _growing(rng: random.Random, found: dict[str, Any]) -> str:
    key = rng.choice(["normalizer", "decoder"])
    found[key] = {"type": "Sequence", f"{key}s": [GROWING] * rng.choice([3, 15, 40])}
    return f"a growing {key}"


def _piece(rng: random.Random, found: dict[str, Any]) -> str:
    pieces = found["model"]["vocab"]
    if isinstance(pieces, dict):
        pieces[rng.choice([*list(pieces)[:50], "", "new", "▁", "a" * 10**5])] = rng.choice(
            [*documents.ODD, 1 << 31, 10**6]
        )
    else:
        pieces[rng.randrange(len(pieces))] = rng.choice([*documents.ODD, ["", 0.0], ["a", 1e300], ["a", "b"], ["a"]])
    return "a piece"


def _merge(rng: random.Random, found: dict[str, Any]) -> str:
    merges = found["model"].setdefault("merges", [])
    new = rng.choice([*documents.ODD, ["a"], "a b c", ["zz", "qq"], ["a", "a"], {"a": 1, "b": 2}])
    merges.insert(rng.randrange(len(merges) + 1), new)
    return "a merge"


def _added(rng: random.Random, found: dict[str, Any]) -> str:
    flags = {
        key: rng.choice([True, False, *documents.ODD]) for key in ("lstrip", "rstrip", "single_word", "normalized")
    }
    odd = {"id": rng.choice([0, 7, 10**6, *documents.ODD]), "content": rng.choice(["[X]", "a", " ", *documents.ODD])}
    found["added_tokens"].append({**odd, "special": True, **flags})
    return "an added token"


def _setting(rng: random.Random, found: dict[str, Any]) -> str:
    key = rng.choice(
        ["type", "dropout", "unk_token", "unk_id", "byte_fallback", "fuse_unk", "ignore_merges", "vocab", "merges"]
    )
    found["model"][key] = rng.choice(documents.ODD)
    return f"the model's {key}"


CHANGES: tuple[Callable[[random.Random, dict[str, Any]], str], ...] = (
    *(_other_part, _growing, _piece, _merge, _added, _setting),
)


def _ids(folder: pathlib.Path) -> object:
    found = tokenizer_lib.load_tokenizer(folder)
    ids, offsets = found.encode_with_offsets(TEXT)
    assert ids == found.encode(TEXT, add_bos=False)
    assert all(type(i) is int and 0 <= i < 1 << 20 for i in ids), "ids that index nothing"
    assert all(0 <= first <= end <= len(TEXT) for first, end in offsets)
    return found.decode(ids)


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A folder with one thing wrong in its tokenizer.json."""
    kind = rng.choice([*json_folders.KINDS, "llama"])
    found = copy.deepcopy(sound(kind))
    config = {"eos_token": json_folders.END, "bos_token": json_folders.BEGIN, "unk_token": json_folders.PAD}
    what, right = "sound", True
    data = json.dumps(found).encode()
    if rng.random() < 0.9:
        if rng.random() < 0.3:
            what, data = documents.change(rng, found)
        else:
            what = rng.choice(CHANGES)(rng, found)
            data = documents.dumps(found)
    (folder / "tokenizer.json").write_bytes(data)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if what == "sound":
        return sandbox.Trial(f"{kind}: sound", lambda: bool(_ids(folder)), right, must_read=True)
    broken = what.startswith(documents.BROKEN)
    return sandbox.Trial(f"{kind}: {what}", lambda: _ids(folder), sandbox.Nothing if broken else sandbox.Anything)
