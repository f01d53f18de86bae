"""Hostile conversations, prompts and benchmark files."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax import config
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.data import vlguard
from vlguard_jax.safety.benchmarks import prompts

CHATS: list[dict[str, Any]] = [
    {
        "id": "a",
        "image": "one/a.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A plate."}],
    },
    {
        "id": "b",
        "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hello to you — ünï 🙂"}],
    },
]
ALPACA = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "Say no.", "input": "", "output": "no"},
]
PROMPTS = [
    {"id": "p", "prompt": "Is this fine?", "safe": True},
    {"id": "q", "prompt": "Is that?", "safe": False, "category": "x"},
]
GUARD: list[dict[str, Any]] = [
    {
        "id": "u",
        "image": "bad/u.png",
        "safe": False,
        "harmful_category": "c",
        "harmful_subcategory": "s",
        "instr-resp": [{"instruction": "i", "response": "r"}],
    },
    {
        "id": "s",
        "image": "good/s.png",
        "safe": True,
        "instr-resp": [{"safe_instruction": "i", "response": "r"}, {"unsafe_instruction": "j", "response": "t"}],
    },
]


def _usable(text: str) -> str:
    """Fails on what cannot be tokenized, hashed or written."""
    return text.encode().decode()


def _chats(path: pathlib.Path) -> object:
    return [
        [r.id, [_usable(t.text) for t in r.turns], [_usable(i) for i in r.images]]
        for r in json_records.read(path, records.parse_llava)
    ]


def _alpaca(path: pathlib.Path) -> object:
    return [[_usable(t.text) for t in r.turns] for r in json_records.read(path, records.parse_alpaca)]


def _prompts(path: pathlib.Path) -> object:
    settings = config.BenchmarkSettings(name="prompts", path=str(path))
    return [
        [_usable(i.id), _usable(i.question)]
        for subset in ("text_safe", "text_unsafe")
        for i in prompts.load(settings, subset)
    ]


def _guard(path: pathlib.Path) -> object:
    return [
        [_usable(i.id), _usable(i.image), [list(map(_usable, p)) for p in i.pairs]]
        for i in vlguard.read_items(path, "test")
    ]


FORMATS = {
    "llava": (CHATS, _chats),
    "alpaca": (ALPACA, _alpaca),
    "prompts": (PROMPTS, _prompts),
    "vlguard": (GUARD, _guard),
}


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A file of one of the formats with one thing wrong, as a list or as lines."""
    name = rng.choice(list(FORMATS))
    value, reader = FORMATS[name]
    lines = name in ("llava", "alpaca") and rng.random() < 0.3
    path = folder / ("data.jsonl" if lines else "data.json")
    if rng.random() < 0.1:
        path.write_text("\n".join(map(json.dumps, value)) if lines else json.dumps(value))
        return sandbox.Trial(f"{name}: sound", lambda: bool(reader(path)), True, must_read=True)
    what, data = documents.change(rng, value[0] if lines else value)
    path.write_bytes(data + b"\n" + json.dumps(value[1]).encode() if lines else data)
    broken = what.startswith((documents.BROKEN, "half of", "number of", "deep"))
    # A key that every reader leaves alone may hold anything of these but what is no JSON at all.
    right = sandbox.Nothing if broken and not what.startswith(("half of", "number of", "deep")) else sandbox.Anything
    return sandbox.Trial(f"{name}: {what}", lambda: reader(path), right)
