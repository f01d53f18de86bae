"""A GGUF file of a tiny Llama with a byte-level tokenizer, written by hand so that anything in it can be changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import struct
from typing import Any, NamedTuple

import numpy as np

U8, I32, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 5, 4, 6, 7, 8, 9, 10
PLAIN, HALF, Q4_1, Q8_0, BF16 = 0, 1, 3, 8, 30  # types of tensors
_FORMS = {U8: "<B", I32: "<i", U32: "<I", F32: "<f", BOOL: "<B", U64: "<Q"}
WIDTH, LAYERS, HEADS, KV_HEADS, HEAD, MLP = 32, 2, 4, 2, 8, 64
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("Ġ t", "h e", "Ġt he", "Ġ a", "e r", "1 2")
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Value(NamedTuple):
    """A setting. inner: type of the elements of a list."""

    type: int
    value: Any
    inner: int = 0


class Stored(NamedTuple):
    """A tensor. shape: in numpy's order."""

    name: str
    shape: tuple[int, ...]
    type: int
    data: bytes


def alphabet() -> list[str]:
    """The characters that stand for the 256 bytes (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(hidden))]


def vocabulary() -> list[str]:
    """Special tokens, bytes, and what the merges make."""
    return [*CONTROL, *alphabet(), *(merge.replace(" ", "") for merge in MERGES)]


def settings() -> dict[str, Value]:
    """Those of the tiny model."""
    texts = vocabulary()
    types = [3 if text in CONTROL else 1 for text in texts]
    numbers = {
        "block_count": LAYERS,
        "context_length": 128,
        "embedding_length": WIDTH,
        "feed_forward_length": MLP,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "rope.dimension_count": HEAD,
        "vocab_size": len(texts),
    }
    ids = {"bos": 1, "eos": 2, "unknown": 0, "padding": 2}
    return {
        "general.architecture": Value(STRING, "llama"),
        "general.name": Value(STRING, "Tiny"),
        "general.license": Value(STRING, "apache-2.0"),
        **{f"llama.{key}": Value(U32, value) for key, value in numbers.items()},
        "llama.rope.freq_base": Value(F32, 100000.0),
        "llama.attention.layer_norm_rms_epsilon": Value(F32, 1e-5),
        "tokenizer.ggml.model": Value(STRING, "gpt2"),
        "tokenizer.ggml.pre": Value(STRING, "smollm"),
        "tokenizer.ggml.add_bos_token": Value(BOOL, False),
        "tokenizer.ggml.tokens": Value(ARRAY, texts, STRING),
        "tokenizer.ggml.token_type": Value(ARRAY, types, I32),
        "tokenizer.ggml.merges": Value(ARRAY, list(MERGES), STRING),
        **{f"tokenizer.ggml.{key}_token_id": Value(U32, value) for key, value in ids.items()},
        "tokenizer.chat_template": Value(STRING, TEMPLATE),
    }


def tensors(*, tied: bool = True) -> list[Stored]:
    """Random weights, matrices in blocks of 8-bit numbers."""
    rng = np.random.default_rng(0)

    def norm(name: str) -> Stored:
        return Stored(name, (WIDTH,), PLAIN, (1 + 0.1 * rng.standard_normal(WIDTH)).astype("<f4").tobytes())

    def matrix(name: str, rows: int, columns: int) -> Stored:
        blocks = rows * columns // 32
        made = np.empty(blocks, [("scale", "<f2"), ("numbers", "i1", 32)])
        made["scale"] = rng.uniform(0.001, 0.002, blocks)
        made["numbers"] = rng.integers(-127, 128, (blocks, 32))
        return Stored(name, (rows, columns), Q8_0, made.tobytes())

    made = [matrix("token_embd.weight", len(vocabulary()), WIDTH)]
    for i in range(LAYERS):
        sizes = {"attn_q": (WIDTH, WIDTH), "attn_k": (KV_HEADS * HEAD, WIDTH), "attn_v": (KV_HEADS * HEAD, WIDTH)}
        sizes |= {"attn_output": (WIDTH, WIDTH), "ffn_gate": (MLP, WIDTH), "ffn_up": (MLP, WIDTH)}
        sizes |= {"ffn_down": (WIDTH, MLP)}
        made += [norm(f"blk.{i}.attn_norm.weight"), norm(f"blk.{i}.ffn_norm.weight")]
        made += [matrix(f"blk.{i}.{name}.weight", *shape) for name, shape in sizes.items()]
    made.append(norm("output_norm.weight"))
    return made if tied else [*made, matrix("output.weight", len(vocabulary()), WIDTH)]


def text(value: str | bytes) -> bytes:
    """A string, its length first."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def setting(key: str, value: Value) -> bytes:
    """One setting with its key."""
    head = text(key) + struct.pack("<I", value.type)
    if value.type != ARRAY:
        return head + _single(value.type, value.value)
    head += struct.pack("<IQ", value.inner, len(value.value))
    return head + b"".join(_single(value.inner, one) for one in value.value)


def _single(kind: int, value: Any) -> bytes:
    return text(value) if kind == STRING else struct.pack(_FORMS[kind], value)


def entry(stored: Stored, offset: int) -> bytes:
    """What the header says of a tensor."""
    dimensions = struct.pack(f"<I{len(stored.shape)}Q", len(stored.shape), *reversed(stored.shape))
    return text(stored.name) + dimensions + struct.pack("<IQ", stored.type, offset)


def packed(
    said: Mapping[str, Value], stored: Sequence[Stored], *, counts: tuple[int, int] | None = None, version: int = 3
) -> bytes:
    """The file. counts: of tensors and settings, where they are to be a lie."""
    entries, data = b"", b""
    for one in stored:
        entries += entry(one, len(data))
        data += one.data + b"\0" * (-len(one.data) % 32)
    numbers = counts or (len(stored), len(said))
    head = b"GGUF" + struct.pack("<IQQ", version, *numbers)
    head += b"".join(setting(key, value) for key, value in said.items()) + entries
    return head + b"\0" * (-len(head) % 32) + data


def whole() -> bytes:
    """The tiny model, sound."""
    return packed(settings(), tensors())
