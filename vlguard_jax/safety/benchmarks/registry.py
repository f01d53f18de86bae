"""Benchmarks by name."""

from __future__ import annotations

from collections.abc import Mapping

from vlguard_jax import errors
from vlguard_jax import own_code
from vlguard_jax.safety.benchmarks import advbench
from vlguard_jax.safety.benchmarks import alpaca_eval
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import figstep
from vlguard_jax.safety.benchmarks import mm_safetybench
from vlguard_jax.safety.benchmarks import mossbench
from vlguard_jax.safety.benchmarks import one_word
from vlguard_jax.safety.benchmarks import own
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
    """The benchmark of this name, or the user's own, "package.module:NAME", whose code is imported.

    Raises:
      UserError: unknown; the nearest known one is named. Or see `own.make`.
    """
    if own_code.BETWEEN in name:
        return own.make(name, "config.benchmark.name")
    if name not in BENCHMARKS:
        near = errors.nearest(name, BENCHMARKS)
        raise errors.UserError(f"config.benchmark.name={name!r} is unknown{near} (or write package.module:NAME)")
    return BENCHMARKS[name]


def columns(name: str) -> Mapping[str, str]:
    """Subset -> column of the paper's tables, of a benchmark of the program; none of another. Imports no code of the
    user's, so that a result file cannot name what is run."""
    return BENCHMARKS[name].columns if name in BENCHMARKS else {}
