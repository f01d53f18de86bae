"""AlpacaEval's instructions with reference answers (Li et al. 2023): the first 300 of 805, as the VLGuard paper takes
them (appendix A.2). Asked as text only; what counts is how often a judge prefers the answer to the reference.

References are text-davinci-003's in the published file; a file of the same form with another model's is read as well.
"""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

from vlguard_jax import config as settings_lib
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import stand_ins

SOURCE = benchmark_lib.Source(
    "https://huggingface.co/datasets/tatsu-lab/alpaca_eval", "CC BY-NC 4.0", "alpaca_eval.json"
)
FILE = "alpaca_eval.json"
SUBSET, FIRST, PUBLISHED = "alpaca_300", 300, 805


def load(settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
    """The first instructions in file order, numbered from 0 since they have no ids.

    Raises:
      UserError: missing or broken file, a missing field, or an instruction that comes twice.
    """

    def item(value: Any, position: int, path: str) -> tuple[benchmark_lib.Item, str]:
        _, origin = records.name(value, position, path)
        text, output = (records.text_field(value, name, origin) for name in ("instruction", "output"))
        category = records.text_field(value, "dataset", origin) if value.get("dataset") is not None else None
        stand_in = stand_ins.marked(settings, text)
        found = benchmark_lib.Item(str(position), subset, text, category=category, stand_in=stand_in, reference=output)
        return found, origin

    path = pathlib.Path(SOURCE.find(settings, FILE))
    first = list(itertools.islice(json_records.read(path, item), FIRST))
    named = ((one.question, origin) for one, origin in first)
    benchmark_lib.check_ids(named, "instruction", "get the published file")
    return [one for one, _ in first]


def stand_in(folder: pathlib.Path) -> None:
    """Write the file with harmless instructions."""
    value = [
        {"dataset": "made", "instruction": stand_ins.question(i), "output": f"Number {i + 1}.", "generator": "none"}
        for i in range(PUBLISHED)
    ]
    stand_ins.write_json(folder / FILE, value)


BENCHMARK = benchmark_lib.Benchmark(
    name="alpaca_eval",
    title="AlpacaEval, the first 300",
    metrics={SUBSET: "refusal_rate"},
    counts={SUBSET: FIRST},
    load=load,
    source=SOURCE,
    pictures=False,
    columns={SUBSET: SUBSET},
    stand_in=stand_in,
)
