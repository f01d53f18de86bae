"""A training with probes of a few harmless questions, and what they leave."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

from tests.safety import stand as safety_stand
from tests.training import stand
from vlguard_jax import config

TOTAL = safety_stand.UNSAFE + 2 * safety_stand.SAFE  # questions of a probe
RATES = ("tiny/unsafes/asr", "tiny/safe_unsafes/asr", "tiny/safe_safes/refusal_rate")
OF_THE_CLOCK = ("seconds", "time", "run_id")


@functools.cache
def benchmark() -> pathlib.Path:
    """VLGuard's files in small."""
    return safety_stand.write_benchmark(stand.folder() / "benchmark")


def probe(**changes: Any) -> config.ProbeSettings:
    """Every second update, all subsets; `changes` replace fields."""
    asked = config.BenchmarkSettings("vlguard_like", str(benchmark()))
    values: dict[str, Any] = {
        "every": 2,
        "evaluations": {"tiny": config.ProbedSettings(asked)},
        "decode": config.DecodeSettings(max_new_tokens=4, batch_size=8),
    }
    return config.ProbeSettings(**values | changes)


def lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file without what depends on the clock."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in OF_THE_CLOCK} for line in found]


def answers(folder: pathlib.Path) -> dict[tuple[str, str], str]:
    """(subset, item) -> answer, of an evaluation; each is answered once."""
    found = lines(folder / "generations.jsonl")
    of_item = {(line["subset"], line["item_id"]): line["response"] for line in found}
    assert len(of_item) == len(found) == TOTAL
    return of_item
