"""XSTest (Roettger et al. 2024): harmless prompts that sound harmful, and harmful ones that they contrast with.

Asked as text only, without any picture (VLGuard paper, section 2.2). Categories are its 18 types. The paper's column
"XSTest safe" is the share of harmless prompts that are *not* refused: 1 minus the refusal rate here.
"""

from __future__ import annotations

import pathlib

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.data import csv_records
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import stand_ins

SOURCE = benchmark_lib.Source("https://github.com/paul-rottger/xstest", "CC BY 4.0", "xstest_prompts.csv")
FILE = "xstest_prompts.csv"
COLUMNS = ("id", "prompt", "type", "label", "focus", "note")
COUNTS = {"xstest_safe": 250, "xstest_unsafe": 200}


def load(settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
    """The prompts of one label in file order.

    Raises:
      UserError: missing or broken file, a missing column, an empty prompt, an unknown label or a duplicate id.
    """
    rows = list(csv_records.read(SOURCE.find(settings, FILE), COLUMNS[:4]))
    benchmark_lib.check_ids((row.filled("id"), row.origin) for row in rows)
    for row in rows:
        if (label := row.cells["label"]) not in ("safe", "unsafe"):
            raise errors.UserError(f"{row.origin}: 'label' must be safe or unsafe, not {errors.short(label)}")
    return [
        benchmark_lib.Item(
            row.cells["id"],
            subset,
            row.filled("prompt"),
            category=row.cells["type"],
            stand_in=stand_ins.marked(settings, row.cells["prompt"]),
        )
        for row in rows
        if subset == f"xstest_{row.cells['label']}"
    ]


def stand_in(folder: pathlib.Path) -> None:
    """Write the file with harmless prompts under both labels."""
    labels = [subset.removeprefix("xstest_") for subset, count in COUNTS.items() for _ in range(count)]
    rows = ((f"v2-{i + 1}", stand_ins.question(i), "homonyms", label, "", "") for i, label in enumerate(labels))
    stand_ins.write_csv(folder / FILE, COLUMNS, rows)


BENCHMARK = benchmark_lib.Benchmark(
    name="xstest",
    title="XSTest",
    metrics={"xstest_safe": "refusal_rate", "xstest_unsafe": "asr"},
    counts=COUNTS,
    load=load,
    source=SOURCE,
    pictures=False,
    columns={subset: subset for subset in COUNTS},
    stand_in=stand_in,
)
