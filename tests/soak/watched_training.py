"""`python -m vlguard_jax.train` that tells outside what it is at; as watched.py, which has the words.

python -m tests.soak.watched_training FILE FLAGS...
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import errno
import os
import pathlib
import runpy
import sys
from typing import Any

from tests.soak import watched

# start: imports, weights, conversations. between: the host's work around the programs, until the process has ended.
PHASES = ("start", "between", "load", "data", "compile", "step", "save", "export")
BUCKET = "SOAK_BUCKET"  # set: folders cannot be renamed


def _stepping(phase: watched.Phase, step: Callable[..., Any]) -> Callable[..., Any]:
    """The jitted step, waited for; its first call compiles."""
    import jax

    seen = set()

    def call(*args: Any) -> Any:
        shapes = str(jax.tree.map(lambda x: getattr(x, "shape", x), args))
        new, _ = shapes not in seen, seen.add(shapes)
        with phase.of("compile" if new else "step"):
            return jax.block_until_ready(step(*args))

    return call


def watch(phase: watched.Phase) -> None:
    """Put the phases around the functions of this process, for good."""
    from vlguard_jax.checkpoints import store
    from vlguard_jax.training import feed
    from vlguard_jax.training import program
    from vlguard_jax.training import resume
    from vlguard_jax.training import tuned

    build, restore = program.build, resume.restore

    def built(*args: Any, **kwargs: Any) -> program.Program:
        made = build(*args, **kwargs)
        return dataclasses.replace(made, step=_stepping(phase, made.step))

    def restored(*args: Any, **kwargs: Any) -> Any:
        with phase.of("load"):
            state = restore(*args, **kwargs)
        phase.set("between")
        return state

    program.build = built  # type: ignore[assignment]
    resume.restore = restored
    feed.Feed.take = phase.wrapped("data", feed.Feed.take)  # type: ignore[method-assign]
    store.Store.save = phase.wrapped("save", store.Store.save)  # type: ignore[method-assign]
    store.Store.wait = phase.wrapped("save", store.Store.wait)  # type: ignore[method-assign]
    tuned.write = phase.wrapped("export", tuned.write)


def without_renaming() -> None:
    """Let this process rename files only, for good, as in a bucket that gcsfuse has mounted."""
    rename = os.rename

    def files_only(old: Any, new: Any, **kwargs: Any) -> None:
        if os.path.isdir(old) and os.listdir(old):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), os.fspath(old), None, os.fspath(new))
        rename(old, new, **kwargs)

    os.rename = os.replace = files_only  # type: ignore[assignment]


if __name__ == "__main__":
    if os.environ.get(BUCKET):
        without_renaming()
    watch(watched.Phase(pathlib.Path(sys.argv[1]), PHASES))
    del sys.argv[1]
    runpy.run_module("vlguard_jax.train", run_name="__main__", alter_sys=True)
