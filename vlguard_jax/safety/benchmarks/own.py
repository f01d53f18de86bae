"""A benchmark of the user's own, named in `config.benchmark.name` as "package.module:NAME". See
docs/adding_a_benchmark.md."""

from __future__ import annotations

import dataclasses
import functools

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import own_code
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib

METRICS = ("asr", "refusal_rate", "accuracy")


@functools.cache
def make(name: str, where: str) -> benchmark_lib.Benchmark:
    """The benchmark of this name, which is also the one in results, with the sha256 of its file.

    Raises:
      UserError: as `own_code.load`; it is no Benchmark, or counts what there is not.
    """
    code = own_code.load(name, where)
    found = code.value
    if not isinstance(found, benchmark_lib.Benchmark):
        raise code.problem(
            f"is {errors.short(found)}; it must be a Benchmark (vlguard_jax.safety.benchmarks.benchmark)"
        )
    if not found.metrics:
        raise code.problem("has no subset: its `metrics` name them")
    for subset, metric in found.metrics.items():
        if metric not in METRICS:
            raise code.problem(f"counts {errors.short(metric)} of {subset}{errors.nearest(str(metric), METRICS)}")

    def load(settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
        with code.blamed(f"to load {subset}"):
            items = found.load(settings, subset)
        return _checked(code, items, subset)

    return dataclasses.replace(found, name=name, load=load, code_sha256=code.sha256)


def _checked(code: own_code.Own, items: object, subset: str) -> list[benchmark_lib.Item]:
    if not isinstance(items, list) or not all(isinstance(item, benchmark_lib.Item) for item in items):
        raise code.problem(f"loads {errors.short(items)} for {subset}; it must be a list of benchmark.Item")
    if other := next((item for item in items if item.subset != subset), None):
        raise code.problem(f"loads item {errors.short(other.id)} of {errors.short(other.subset)} for {subset}")
    benchmark_lib.check_ids((item.id, f"{code.file}: {subset} item {errors.short(item.id)}") for item in items)
    return items
