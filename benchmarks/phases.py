"""Runs one entry point of the package as its own process would, and writes where its wall-clock time went; started by
time_to_result.py.

  python benchmarks/phases.py FIGURES.json vlguard_jax.train --config=... --workdir=...

Phases count their own time, without nested phases. `compile` is lowering and XLA, or reading the compilation cache;
tracing counts where it happens. `start` is from the caller's TIME_TO_RESULT_STARTED (seconds since the epoch) to the
call, imports included.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import functools
import importlib
import json
import os
import pathlib
import sys
import threading
import time
from typing import Any

STARTED = "TIME_TO_RESULT_STARTED"
COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
# (module, function or Class.method, phase); callers reach them through their module, so that a wrapper in its place is
# found.
TIMED = {
    "vlguard_jax.convert": [
        ("vlguard_jax.checkpoints.load", "opened", "load"),
        ("vlguard_jax.checkpoints.save", "save_llava", "save"),
        ("vlguard_jax.checkpoints.save", "save_orbax", "save"),
    ],
    "vlguard_jax.train": [
        ("vlguard_jax.training.setup", "load_model", "load"),
        ("vlguard_jax.training.setup", "load_data", "data"),
        ("vlguard_jax.training.setup", "build_program", "load"),
        ("vlguard_jax.training.loop", "_run", "steps"),
        ("vlguard_jax.checkpoints.store", "Store.save", "save"),
        ("vlguard_jax.checkpoints.store", "Store.close", "save"),
        ("vlguard_jax.training.tuned", "write", "save"),
    ],
    "vlguard_jax.evaluate": [
        ("vlguard_jax.checkpoints.load", "opened", "load"),
        ("vlguard_jax.generation.engine", "Engine.__init__", "load"),
        ("vlguard_jax.safety.run", "evaluate", "answers"),
    ],
    "vlguard_jax.report": [
        ("vlguard_jax.reporting.page", "render", "report"),
        ("vlguard_jax.reporting.page", "save", "report"),
    ],
}


class Clock:
    """Seconds by phase of one thread."""

    def __init__(self, began: float):
        self.seconds: dict[str, float] = {}
        self.programs = 0
        self._open = ["start"]
        self._since = began
        self._thread = threading.get_ident()

    def settle(self) -> float:
        """Count the time that has passed; returns until when (seconds since the epoch)."""
        now = time.time()
        self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now
        return now

    @contextlib.contextmanager
    def phase(self, name: str) -> Any:
        """Count the time of the block for `name` instead of the outer phase."""
        self.settle()
        self._open.append(name)
        try:
            yield
        finally:
            self.settle()
            self._open.pop()

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`function`, with its calls in this thread timed."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            with self.phase(name):
                return function(*args, **kwargs)

        return wrapper

    def compiled(self, event: str, seconds: float, **_: Any) -> None:
        """A listener of jax.monitoring: the time that just passed was the compiler's."""
        if event not in COMPILING or threading.get_ident() != self._thread:
            return
        self.programs += event == COMPILING[1]
        self.settle()
        here = self._open[-1]
        self.seconds[here] -= seconds
        self.seconds["compile"] = self.seconds.get("compile", 0.0) + seconds


def watch(clock: Clock, module: str) -> None:
    """Wrap the functions of an entry point with the clock."""
    for name, path, phase in TIMED[module]:
        owner: Any = importlib.import_module(name)
        *classes, attribute = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        setattr(owner, attribute, clock.timed(getattr(owner, attribute), phase))
    if module != "vlguard_jax.report":
        import jax

        jax.monitoring.register_event_duration_secs_listener(clock.compiled)


def main(figures: str, module: str, arguments: list[str]) -> None:
    """Run `module` with `arguments`; ends the process with its exit code."""
    from vlguard_jax import cli

    clock = Clock(float(os.environ.get(STARTED, time.time())))
    sys.argv = [module, *arguments]
    entry = importlib.import_module(module)
    watch(clock, module)
    try:
        with clock.phase("other"):
            cli.run(entry.main, doc=entry.__doc__)
    finally:
        ended = clock.settle()
        found = {"seconds": clock.seconds, "programs": clock.programs, "ended": ended}
        pathlib.Path(figures).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
