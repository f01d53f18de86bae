"""Tampered and damaged entries of the user's caches: what is read must be what was written, or be made again."""

from __future__ import annotations

import json
import pathlib
import random

from tests.data import stand
from tests.faults import exports
from tests.faults import sandbox
from tests.faults import texts
from vlguard_jax import config
from vlguard_jax.data import file_index
from vlguard_jax.data import sources
from vlguard_jax.data import tokenization
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

PICKLE = b"\x80\x04cposix\nsystem\n(X\x09\0\0\0touch rantR."


def _indexed(path: pathlib.Path, cache: pathlib.Path, tokenizer: pathlib.Path) -> object:
    settings = config.SourceSettings(path=str(path), images=str(path.parent))
    source = sources.open_source("s", settings, cache)
    how = tokenization.Tokenization(
        tokenizer_lib.load_tokenizer(tokenizer), templates.get_template("vicuna_v1"), exports.CONFIG, 512
    )
    found = file_index.build_or_load(source.records, source.content, how, cache)
    return [
        found.length.tolist(),
        list(found.ids),
        [list(i) for i in found.images],
        source.content,
        [r().id for r in source.records.each()],
    ]


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """An index that was cached, and one of its files changed since."""
    path, cache, tokenizer = folder / "chats.json", folder / "cache", stand.write_tokenizer(folder / "tokenizer")
    path.write_text(json.dumps(texts.CHATS))
    right = _indexed(path, cache, tokenizer)
    entry = rng.choice(sorted(p for p in cache.rglob("*") if p.is_file()))
    data = bytearray(entry.read_bytes())
    kind = rng.choice(["flipped", "truncated", "other", "name that climbs", "link"])
    if kind == "flipped":
        for _ in range(rng.choice([1, 5])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "truncated":
        del data[rng.randrange(len(data)) :]
    elif kind == "other":
        data = bytearray(
            rng.choice(
                [
                    b"",
                    b"\x80\x04cposix\nsystem\n(X\x05\0\0\0touchtR.",
                    b"\x93NUMPY\x01\0" + rng.randbytes(90),
                    b"\0" * 999,
                ]
            )
        )
    elif kind == "name that climbs":
        data = bytearray(b"../" * 21 + b"x")
    elif kind == "link":
        entry.unlink()
        entry.symlink_to("/dev/zero")
    if kind != "link":
        entry.write_bytes(data)
    return sandbox.Trial(f"{entry.parent.name}: {kind}", lambda: _indexed(path, cache, tokenizer), right)
