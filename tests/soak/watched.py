"""`python -m vlguard_jax.evaluate` that tells outside what it is at, so that a kill from outside can be given a name.

  python -m tests.soak.watched FILE FLAGS...

FILE, which is mapped into memory, outlives the process: its first byte is always the index in PHASES of what goes on in
the main thread, the second that of another one, which appends answers; 0 between them. Each program is waited for here,
so that only one thing goes on at a time in a thread. Nothing else differs.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import dataclasses
import mmap
import pathlib
import runpy
import sys
import threading
from typing import Any

# start: imports, weights, questions. between: the host's work around the programs. verdict: judging, summary.json.
PHASES = ("start", "between", "picture", "compile", "prefill", "decode", "append", "verdict")
DECODING = ("run", "decode")  # programs; what else the engine runs belongs to a prefill


class Phase:
    """What goes on, kept in a file."""

    def __init__(self, path: pathlib.Path, phases: tuple[str, ...] = PHASES):
        self._phases = phases
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 0)

    def set(self, name: str) -> None:
        """From now on, in this thread."""
        self._page[_place()] = self._phases.index(name)

    @contextlib.contextmanager
    def of(self, name: str) -> Any:
        """While this context is open."""
        place = _place()
        before = self._page[place]
        self.set(name)
        try:
            yield
        finally:
            self._page[place] = before

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, in its phase."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.of(name):
                return function(*args, **kwargs)

        return call


def _place() -> int:
    return 0 if threading.current_thread() is threading.main_thread() else 1


def read(path: pathlib.Path, phases: tuple[str, ...] = PHASES) -> str:
    """What went on last; an append, if there was one beside the rest. The first phase where nothing was told yet."""
    main, beside = (path.read_bytes() if path.exists() else b"")[:2] or b"\0\0"
    return phases[beside or main]


def _program(phase: Phase, name: str, compiled: Any) -> Callable[..., Any]:
    """A jitted function: its first call with arrays of new shapes compiles."""
    import jax

    seen = set()

    def call(*args: Any) -> Any:
        shapes = str(jax.tree.map(lambda x: getattr(x, "shape", x), args))
        new, _ = shapes not in seen, seen.add(shapes)
        with phase.of("compile" if new else "decode" if name in DECODING else "prefill"):
            return jax.block_until_ready(compiled(*args))

    return call


def watch(phase: Phase) -> None:
    """Put the phases around the functions of this process, for good."""
    from vlguard_jax.data import images
    from vlguard_jax.generation import engine
    from vlguard_jax.generation import program
    from vlguard_jax.safety import results
    from vlguard_jax.safety import run

    build, of_checkpoint = program.build, engine.of_checkpoint

    def built(*args: Any, **kwargs: Any) -> program.Program:
        made = build(*args, **kwargs)
        fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
        jitted = {name: value for name, value in fields.items() if hasattr(value, "lower")}
        assert set(DECODING) <= set(jitted) and len(jitted) > len(DECODING)
        return dataclasses.replace(made, **{name: _program(phase, name, one) for name, one in jitted.items()})

    def answering(*args: Any, **kwargs: Any) -> engine.Engine:
        made = of_checkpoint(*args, **kwargs)
        phase.set("between")
        return made

    program.build = built  # type: ignore[assignment]
    engine.of_checkpoint = answering
    images.load = phase.wrapped("picture", images.load)
    results.Lines.append = phase.wrapped("append", results.Lines.append)  # type: ignore[method-assign]
    run._Kept.rows = phase.wrapped("verdict", run._Kept.rows)  # type: ignore[method-assign]


if __name__ == "__main__":
    watch(Phase(pathlib.Path(sys.argv[1])))
    del sys.argv[1]
    runpy.run_module("vlguard_jax.evaluate", run_name="__main__", alter_sys=True)
