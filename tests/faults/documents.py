"""JSON documents with one thing wrong: a value of another kind, a text that is none, numbers and nesting beyond every
use, broken ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import math
import random
from typing import Any

BROKEN = "broken text"  # no JSON parser may take it

ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    1.5,
    -0.0,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    10**9,
    1 << 63,
    -(1 << 63),
    "",
    " ",
    "7",
    "false",
    "x" * 3000,
    "\u001b[2J\u0007",
    "line\nbreak",
    "[/b][link=file:///etc/passwd]x",
    "<script>alert(1)</script>",
    "\u202etxt.exe",
    "../../outside/picture.png",
    "/etc/passwd",
    "a\0b",
    "{0.__class__}",
    [],
    [[]],
    {},
    {"a": {}},
    [1, "a", None],
)

Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every node of a document, its root included."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from places(inner, (*path, i))


def put(value: Any, path: Path, new: Any) -> Any:
    """A copy of the document with `new` in one place."""
    if not path:
        return new
    first, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[first] = put(value[first], tuple(rest), new)
    return copy


def dumps(value: Any, literals: dict[str, str] | None = None) -> bytes:
    """JSON; `literals` are texts that stand for what json cannot write."""
    text = json.dumps(value)
    for mark, raw in (literals or {}).items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode()


def _literal(raw: str) -> Callable[[random.Random, Any, Path], bytes]:
    return lambda rng, value, path: dumps(put(value, path, "\u0001mark"), {"\u0001mark": raw})


def _replaced(rng: random.Random, value: Any, path: Path) -> bytes:
    return dumps(put(value, path, rng.choice(ODD)))


def _without(rng: random.Random, value: Any, path: Path) -> bytes:
    paths = [p for p in places(value) if p and isinstance(p[-1], str)]
    if not paths:
        return dumps(value)
    chosen = rng.choice(paths)
    above = value
    for step in chosen[:-1]:
        above = above[step]
    return dumps(put(value, chosen[:-1], {k: v for k, v in above.items() if k != chosen[-1]}))


def _cut(rng: random.Random, value: Any, path: Path) -> bytes:
    data = dumps(value).rstrip()
    return data[: rng.randrange(1, len(data))]  # of nothing, a line of JSON lines is no record


def _flipped(rng: random.Random, value: Any, path: Path) -> bytes:
    data = bytearray(dumps(value))
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _encoded(rng: random.Random, value: Any, path: Path) -> bytes:
    return dumps(value).decode().encode(rng.choice(["utf-16", "utf-32", "utf-16-le"]))


CHANGES: dict[str, Callable[[random.Random, Any, Path], bytes]] = {
    "other value": _replaced,
    "missing key": _without,
    "half of a surrogate pair": _literal('"half \\ud83d pair"'),
    "number of 6,000 digits": _literal("9" * 6000),
    "huge exponent": _literal("1e999999"),
    "deep nesting": _literal("[" * 100_000 + "]" * 100_000),
    "deep objects": _literal('{"a":' * 50_000 + "1" + "}" * 50_000),
    "nested as deep as parsers go": _literal("[" * 900 + "]" * 900),
    "millions of values": _literal("[" + "{}," * 4_000_000 + "1]"),
    "flipped bytes": _flipped,
    "other encoding": _encoded,
    BROKEN: _cut,
}


def change(rng: random.Random, value: Any, kinds: tuple[str, ...] = tuple(CHANGES)) -> tuple[str, bytes]:
    """(what was done, the document's bytes) with one thing wrong in one place."""
    kind = rng.choice(kinds)
    path = rng.choice(list(places(value)))
    return f"{kind} at {'/'.join(map(str, path)) or 'the top'}", CHANGES[kind](rng, value, path)
