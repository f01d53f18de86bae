"""How fast this machine is today, in two figures that do not change with the project.

  python benchmarks/yardstick.py

A float32 product of two matrices in numpy, on all cores, and the compilation of a small transformer's gradient by XLA
for the CPU, with an empty cache. Machines of one size differ by a factor of two, and one machine from hour to hour:
figures of two runs are compared relative to these. Prints one table, or with --json one JSON object.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import statistics
import time

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from vlguard_jax import cli
from vlguard_jax import errors
from vlguard_jax.ranges import Range

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_TIMES = cli.define_number("times", int, 3, Range(1, 1000), "repetitions of each; the median counts")

SIDE = 2048  # of the matrices
WIDTH, LAYERS, TOKENS = 64, 4, 32  # of the transformer, whose layers are written out


def main(positional: list[str]) -> int:
    """Measure, then print."""
    if positional:
        raise errors.UserError("yardstick.py takes --times and --json; see --help")
    jax.config.update("jax_enable_compilation_cache", False)
    found = {"product_seconds": median(product()), "compile_seconds": median(compilation)}
    if _JSON.value:
        print(json.dumps(found))
    else:
        print(f"product of two {SIDE} x {SIDE} matrices   {found['product_seconds']:.3f} s")
        print(f"compilation of {LAYERS} layers' gradient    {found['compile_seconds']:.3f} s")
    return errors.EXIT_OK


def median(run: Callable[[], object]) -> float:
    """Median wall clock of a call, in seconds, after one that does not count."""
    run()
    seconds = []
    for _ in range(_TIMES.value):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def product() -> Callable[[], np.ndarray]:
    """A function that multiplies two matrices."""
    a, b = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), np.float32)
    return lambda: a @ b


def compilation() -> jax.stages.Compiled:
    """Compile a transformer's gradient anew."""
    layer = {name: jnp.zeros((WIDTH, WIDTH)) for name in ("q", "k", "v", "o", "up", "down")}
    params, x = [layer] * LAYERS, jnp.zeros((TOKENS, WIDTH))

    def loss(params: list[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
        for p in params:
            scores = jax.nn.softmax((x @ p["q"]) @ (x @ p["k"]).T)
            x = x + scores @ (x @ p["v"]) @ p["o"]
            x = x + jax.nn.silu(x @ p["up"]) @ p["down"]
        return jnp.mean(x**2)

    return jax.jit(jax.grad(loss)).lower(params, x).compile()


if __name__ == "__main__":
    cli.run(main)
