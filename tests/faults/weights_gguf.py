"""Hostile GGUF files: a header that lies about what stands behind it, settings and tokens that no model has."""

from __future__ import annotations

import itertools
import json
import pathlib
import random
import struct

import safetensors.numpy

from tests.checkpoints import gguf_made as made
from tests.faults import sandbox
from vlguard_jax import limits
from vlguard_jax.preparing import smollm2

FAR = (1 << 16, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
TYPES = (made.U8, made.I32, made.U32, made.F32, made.BOOL, made.STRING, made.U64)
VALUES = {made.U8: (0, 255), made.I32: (-1, -(1 << 31), 3), made.U32: (0, 7, (1 << 32) - 1), made.BOOL: (0, 1)}
VALUES |= {made.F32: (0.0, -1.0, 1e-45, float("nan"), float("inf")), made.U64: (0, (1 << 64) - 1)}  # type: ignore[dict-item]
TEXTS = ("", "x" * 3000, "\u001b[2J", "qwen2", "{{ 7 }}", "line\nbreak", "\u202etxt", "a\0b")
# Settings that say nothing of the model, so that any value of them is as good.
FREE = ("general.name", "general.license", "tokenizer.chat_template")


def _prepared(folder: pathlib.Path) -> dict[str, object]:
    """What the command writes, in short."""
    out = folder / "model"
    smollm2.run(str(out), str(folder / "model.gguf"), "fp32")
    config = json.loads((out / "config.json").read_text())
    vocabulary = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]
    rows = safetensors.numpy.load_file(out / "model.safetensors")["model.embed_tokens.weight"]
    return {"vocab_size": config["vocab_size"], "tokens": len(vocabulary), "embedding": rows[:3].tolist()}


def _right() -> dict[str, object]:
    """What stands in the sound file: a block is a scale and 32 numbers."""
    blocks = struct.iter_unpack("<e32b", made.tensors()[0].data)
    rows = [[scale * number for number in numbers] for scale, *numbers in itertools.islice(blocks, 3)]
    return {"vocab_size": len(made.vocabulary()), "tokens": len(made.vocabulary()), "embedding": rows}


def _value(rng: random.Random) -> made.Value:
    kind = rng.choice(TYPES)
    if rng.random() < 0.3:
        listed = [
            rng.choice(TEXTS) if kind == made.STRING else rng.choice(VALUES[kind]) for _ in range(rng.choice([0, 3]))
        ]
        return made.Value(made.ARRAY, listed, kind)
    return made.Value(kind, rng.choice(TEXTS) if kind == made.STRING else rng.choice(VALUES[kind]))


def _setting(rng: random.Random) -> tuple[str, bytes, object]:
    """A setting with another value, or none. Any outcome is orderly where it says nothing that is computed with."""
    said = made.settings()
    key = rng.choice(list(said))
    if rng.random() < 0.2:
        del said[key]
        loose = (*FREE, "llama.attention.head_count_kv", "llama.rope.freq_base", "llama.rope.dimension_count")
        loose += ("llama.vocab_size", "tokenizer.ggml.add_bos_token")
        known = key in loose or (key.endswith("_token_id") and "eos" not in key)
        # without kv heads and rotary numbers the sizes are other ones, and the tensors do not fit
        return f"no {key}", made.packed(said, made.tensors()), sandbox.Anything if known else sandbox.Nothing
    said[key] = _value(rng)
    return f"value of {key}", made.packed(said, made.tensors()), sandbox.Anything


def _tokens(rng: random.Random) -> bytes:
    said = made.settings()
    key = rng.choice(["tokens", "token_type", "merges"])
    value = said[f"tokenizer.ggml.{key}"]
    listed = list(value.value)
    at = rng.randrange(len(listed))
    kind = rng.randrange(4)
    if kind == 0 and key != "merges":
        del listed[at]
    elif key == "token_type":
        listed[at] = rng.choice([0, 2, 5, 6, 7, -1])
    elif key == "merges":
        listed[at] = rng.choice(["", " ", "Ġ", "q  x", "Ġ t h", "zz zz", "\u0000 a", b"\xff\xfe"])
    else:
        listed[at] = rng.choice([listed[at - 1], b"\xc3\x28"])
    said[f"tokenizer.ggml.{key}"] = value._replace(value=listed)
    return made.packed(said, made.tensors())


def _lied(rng: random.Random) -> bytes:
    """Counts, lengths, types, shapes and places that are not those of the file."""
    said, stored = made.settings(), made.tensors()
    i = rng.randrange(len(stored))
    kind = rng.randrange(7)
    if kind == 0:
        return made.packed(
            said, stored, counts=rng.choice([(rng.choice(FAR), len(said)), (len(stored), rng.choice(FAR))])
        )
    if kind == 1:
        raw = made.text("k") + struct.pack("<IIQ", made.ARRAY, rng.choice(TYPES), rng.choice(FAR))
        return (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + rng.choice([raw, struct.pack("<Q", rng.choice(FAR))]) + bytes(64)
        )
    if kind == 2:
        shapes = [(rng.choice(FAR), 32), (rng.choice(FAR),) * 4, (33,), (), (0, 32), (1, 1, 1, 1, 32), (7, 31)]
        stored[i] = stored[i]._replace(shape=rng.choice(shapes))
    elif kind == 3:
        stored[i] = stored[i]._replace(type=rng.choice([4, 5, 9, 24, 27, 28, 31, 38, 99, 1 << 31]))
    elif kind == 4:
        name = rng.choice(["", "x" * 100_000, "\u001b[2J", "rope_freqs.weight", stored[i - 1].name])
        stored[i] = stored[i]._replace(name=name)
    elif kind == 5:
        del stored[i]
    else:
        long = {f"k{j}": made.Value(made.STRING, "x" * (1 << 20)) for j in range(1 + (limits.GGUF_HEADER_BYTES >> 20))}
        return made.packed(long, stored)
    return made.packed(said, stored)


def _damaged(rng: random.Random) -> bytes:
    """Numbers that are none, where only the arithmetic sees them."""
    stored = made.tensors()
    i = rng.randrange(len(stored))
    bad = b"\xff\x7f" if stored[i].type == made.Q8_0 else struct.pack("<f", rng.choice([float("nan"), float("-inf")]))
    stored[i] = stored[i]._replace(data=bad + stored[i].data[len(bad) :])
    return made.packed(made.settings(), stored)


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One file and its trial: the whole command over it."""
    kind = rng.choice(["sound", "truncated", "flipped", "setting", "tokens", "lies", "lies", "numbers"])
    data, right = made.whole(), sandbox.Nothing
    if kind == "truncated":
        data = data[: rng.randrange(len(data))]
    elif kind == "flipped":
        changed = bytearray(data)
        for _ in range(rng.choice([1, 3, 20])):
            changed[rng.randrange(8000)] = rng.randrange(256)
        data, right = bytes(changed), sandbox.Anything
    elif kind == "setting":
        kind, data, right = _setting(rng)  # type: ignore[assignment]
    elif kind == "tokens":
        data = _tokens(rng)
    elif kind == "lies":
        data = _lied(rng)
    elif kind == "numbers":
        data = _damaged(rng)
    (folder / "model.gguf").write_bytes(data)
    if kind == "sound":
        return sandbox.Trial(kind, lambda: _prepared(folder), _right(), must_read=True)
    return sandbox.Trial(kind, lambda: _prepared(folder), right)
