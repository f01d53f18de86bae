"""Drawn files through the checks of benchmarks and summaries: items or a line for the user, and never anything else."""

from __future__ import annotations

import json
import pathlib
import random
import typing
from typing import Any

import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.safety import results
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.benchmarks import registry

DRAWS = 200
LEAVES = (
    "a",
    "b",
    "",
    "0",
    "None",
    "<image>",
    "\ud83d",
    "\u00e9\U0001f600",
    "x" * 300,
    0,
    1,
    -2,
    1.5,
    float("nan"),
    10**400,
    None,
    True,
    False,
    [],
    {},
)


def value(draw: random.Random, depth: int = 2) -> Any:
    kind = draw.random()
    if depth and kind < 0.1:
        return [value(draw, depth - 1) for _ in range(draw.randrange(3))]
    if depth and kind < 0.2:
        return {str(draw.choice(LEAVES[:4])): value(draw, depth - 1) for _ in range(draw.randrange(3))}
    return draw.choice(LEAVES)


def record(draw: random.Random, plain: dict[str, Any]) -> Any:
    """A good record with an id of few, of which a field or two are replaced or missing."""
    made = plain | {"id": draw.choice(("a", "b", "c", 1, "1"))}
    for _ in range(draw.choice((0, 0, 0, 1, 2))):
        name = draw.choice([*plain, "id", "other"])
        made[name] = value(draw)
        if draw.random() < 0.2:
            del made[name]
    return made


def check(path: pathlib.Path, draw: random.Random, name: str, plain: dict[str, Any]) -> bool:
    """Whether drawn records were taken."""
    path.write_text(json.dumps([record(draw, plain) for _ in range(draw.randrange(1, 4))]))
    pictures, subsets = (
        ("none", ("unsafes",))
        if name == "vlguard_like"
        else ("real", draw.choice((("text_unsafe",), ("text_unsafe",) * 2, ())))
    )
    asked = config.BenchmarkSettings(
        name=name, path=str(path), pictures=pictures, limit=draw.randrange(-1, 5), subsets=subsets
    )
    try:
        items = benchmark.select(registry.get(name), asked)
        firsts = benchmark.first_n(registry.get(name), asked)
    except errors.UserError as e:
        assert "\n" not in str(e) and len(str(e)) < 2000
        return False
    for subset, first in firsts.items():
        ids = [item.id for item in items if item.subset == subset]
        assert len(set(ids)) == len(ids) and first in (None, len(ids))
    return True


PLAIN = {
    "prompts": {"prompt": "Ask?", "safe": False},
    "vlguard_like": {
        **{"image": "a.jpg", "safe": False, "harmful_category": "c", "harmful_subcategory": "s"},
        "instr-resp": [{"instruction": "Ask?", "response": "No."}],
    },
}


@pytest.mark.parametrize("name", PLAIN)
def test_records(tmp_path: pathlib.Path, name: str) -> None:
    taken = [check(tmp_path / f"{i}.json", random.Random(i), name, PLAIN[name]) for i in range(DRAWS)]
    assert 0.02 * DRAWS < sum(taken) < 0.9 * DRAWS  # both happen


def test_summaries(tmp_path: pathlib.Path) -> None:
    """None of them is a whole summary."""
    path, fields = tmp_path / "summary.json", list(typing.get_type_hints(summary.Row))
    for i in range(DRAWS):
        draw = random.Random(i)
        names = draw.sample(fields, draw.randrange(len(fields)))
        rows = [
            {name: value(draw) for name in names} | {"schema": draw.choice((1, results.SCHEMA, "2", None))}
            for _ in range(draw.randrange(3))
        ]
        path.write_text(json.dumps(draw.choice((rows, value(draw), [value(draw)]))))
        with pytest.raises(errors.UserError, match=r"summary\.json: "):
            summary.read(path, summary.Row)
