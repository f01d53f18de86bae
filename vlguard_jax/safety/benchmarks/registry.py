"""Benchmarks by name."""

from __future__ import annotations

from vlguard_jax import errors
from vlguard_jax.safety.benchmarks import advbench
from vlguard_jax.safety.benchmarks import alpaca_eval
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import figstep
from vlguard_jax.safety.benchmarks import mm_safetybench
from vlguard_jax.safety.benchmarks import mossbench
from vlguard_jax.safety.benchmarks import one_word
from vlguard_jax.safety.benchmarks import prompts
from vlguard_jax.safety.benchmarks import siuo
from vlguard_jax.safety.benchmarks import strongreject
from vlguard_jax.safety.benchmarks import vlguard
from vlguard_jax.safety.benchmarks import xstest

BENCHMARKS = {
    b.name: b
    for b in (
        *(vlguard.BENCHMARK, vlguard.LEAK_FREE, vlguard.LIKE_VLGUARD, prompts.BENCHMARK),
        *(advbench.BENCHMARK, xstest.BENCHMARK, figstep.BENCHMARK, figstep.TINY, figstep.DRAWN_HERE),
        *(strongreject.BENCHMARK, strongreject.SMALL, one_word.BENCHMARK, alpaca_eval.BENCHMARK),
        *(mossbench.BENCHMARK, siuo.BENCHMARK, mm_safetybench.BENCHMARK, mm_safetybench.OF_VLMEVALKIT),
    )
}


def get(name: str) -> benchmark_lib.Benchmark:
    """The benchmark of this name.

    Raises:
      UserError: unknown; the nearest known one is named.
    """
    if name not in BENCHMARKS:
        raise errors.UserError(f"config.benchmark.name={name!r} is unknown{errors.nearest(name, BENCHMARKS)}")
    return BENCHMARKS[name]
