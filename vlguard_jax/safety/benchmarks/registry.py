"""Benchmarks by name."""

from __future__ import annotations

from vlguard_jax import errors
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import prompts
from vlguard_jax.safety.benchmarks import vlguard

BENCHMARKS = {b.name: b for b in (vlguard.BENCHMARK, vlguard.LEAK_FREE, vlguard.LIKE_VLGUARD, prompts.BENCHMARK)}


def get(name: str) -> benchmark_lib.Benchmark:
    """The benchmark of this name.

    Raises:
      UserError: unknown; the nearest known one is named.
    """
    if name not in BENCHMARKS:
        raise errors.UserError(f"config.benchmark.name={name!r} is unknown{errors.nearest(name, BENCHMARKS)}")
    return BENCHMARKS[name]
