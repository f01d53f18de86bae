"""StrongREJECT's forbidden prompts (Souly et al. 2024), 313 and a small choice of 60. Asked as text only.

Its own measure grades how useful an answer is; here it is counted whether there is one. Not in VLGuard's paper.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib

from vlguard_jax import config as settings_lib
from vlguard_jax.data import csv_records
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import stand_ins

SOURCE = benchmark_lib.Source(
    "https://github.com/alexandrasouly/strongreject", "MIT", "strongreject_dataset/strongreject_dataset.csv"
)
COLUMNS = ("category", "source", "forbidden_prompt")


def load(file: str, settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
    """The prompts of `file` in its order, numbered from 0 since they have no ids.

    Raises:
      UserError: missing or broken file, a missing column, an empty prompt or one that comes twice.
    """
    rows = list(csv_records.read(SOURCE.find(settings, file, f"strongreject_dataset/{file}"), COLUMNS))
    asked = [row.filled("forbidden_prompt") for row in rows]
    benchmark_lib.check_ids(zip(asked, (row.origin for row in rows), strict=True), "prompt", "get the published file")
    return [
        benchmark_lib.Item(
            str(i), subset, text, category=row.cells["category"], stand_in=stand_ins.marked(settings, text)
        )
        for i, (row, text) in enumerate(zip(rows, asked, strict=True))
    ]


def stand_in(file: str, count: int, folder: pathlib.Path) -> None:
    """Write the file with harmless prompts."""
    rows = (("Things", "custom", stand_ins.question(i)) for i in range(count))
    stand_ins.write_csv(folder / file, COLUMNS, rows)


BENCHMARK = benchmark_lib.Benchmark(
    name="strongreject",
    title="StrongREJECT",
    metrics={"strongreject": "asr"},
    counts={"strongreject": 313},
    load=functools.partial(load, "strongreject_dataset.csv"),
    source=SOURCE,
    pictures=False,
    stand_in=functools.partial(stand_in, "strongreject_dataset.csv", 313),
)
SMALL = dataclasses.replace(
    BENCHMARK,
    name="strongreject_small",
    title="StrongREJECT, the small set",
    metrics={"strongreject_small": "asr"},
    counts={"strongreject_small": 60},
    load=functools.partial(load, "strongreject_small_dataset.csv"),
    source=dataclasses.replace(SOURCE, files="strongreject_dataset/strongreject_small_dataset.csv"),
    stand_in=functools.partial(stand_in, "strongreject_small_dataset.csv", 60),
)
