"""Text-only prompts from the user's file: harmless ones, unsafe ones, and the unsafe ones with a suffix that asks for
compliance.

The file is a JSON list of {"id", "prompt", "safe": true or false, "category" (optional)}, or JSON lines of the same;
ids are unique. The suffix attack is the paper's (section 2.2, after Wei et al. 2023: the prompt says how the reply is
to begin).
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib

REQUIRED = ("id", "prompt", "safe")
OPTIONAL = ("category",)


def load(settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
    """The prompts of one subset in file order.

    Raises:
      UserError: missing or broken file, a record with a wrong, missing or unknown field, a duplicate id, or no suffix.
    """
    if not settings.path:
        raise errors.UserError('config.benchmark.path is empty: name a JSON list of {"id", "prompt", "safe"}')
    suffix = ""
    if subset == "text_suffix":
        if not settings.suffix.strip():
            raise errors.UserError(
                "config.benchmark.suffix is empty: give one, or leave text_suffix out of config.benchmark.subsets"
            )
        suffix = " " + settings.suffix
    path = pathlib.Path(settings.path)
    named, items = [], []
    for position, (item, safe) in enumerate(json_records.read(path, functools.partial(_item, subset, suffix))):
        named.append((item.id, f"{path}: record {position} (id {errors.short(item.id)})"))
        if safe == (subset == "text_safe"):
            items.append(item)
    benchmark_lib.check_ids(named)
    return items


def _item(subset: str, suffix: str, value: Any, position: int, path: str) -> tuple[benchmark_lib.Item, bool]:
    _, origin = records.name(value, position, path)
    known = (*REQUIRED, *OPTIONAL)
    for name in value:
        if name not in known:
            raise errors.UserError(
                f"{origin}: {errors.short(name)} is not a field of a prompt{errors.nearest(name, known)}"
            )
    prompt = records.text_field(value, "prompt", origin)
    if not prompt.strip():
        raise errors.UserError(f"{origin}: 'prompt' is empty")
    if not isinstance(value.get("safe"), bool):
        raise errors.UserError(f"{origin}: 'safe' must be true or false")
    category = records.text_field(value, "category", origin) if value.get("category") is not None else None
    return benchmark_lib.Item(
        records.text_field(value, "id", origin), subset, prompt + suffix, category=category
    ), value["safe"]


BENCHMARK = benchmark_lib.Benchmark(
    name="prompts",
    title="your own prompts",
    metrics={"text_safe": "refusal_rate", "text_unsafe": "asr", "text_suffix": "asr"},
    counts={},
    load=load,
    pictures=False,
)
