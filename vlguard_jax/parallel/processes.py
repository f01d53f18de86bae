"""What the processes of one program agree on before anything is computed, and what they do together.

Each process logs to WORKDIR/logs/process-I.log what process 0 shows, and its own warnings; only process 0 uses the
terminal. How they find each other: joining.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
import contextlib
import hashlib
import json
import logging
from pathlib import Path
import platform
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

import vlguard_jax
from vlguard_jax import errors
from vlguard_jax import shipped
from vlguard_jax import terminal
from vlguard_jax import versions
from vlguard_jax import workdir

PROBLEM = 1000  # bytes of a process's problem that the others are told
# What to do where processes differ in settings, packages or files.
WAYS = {
    "config": "start all with the same command",
    "versions": "install the same packages and the same checkout on every host",
    "files": "give every process the same files",
}

T = TypeVar("T")


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """`workdir.hold` for all processes of this run: the first holds it. Raises UserError in all, as there."""
    with contextlib.ExitStack() as held:
        with together():
            if jax.process_index() == 0:
                held.enter_context(workdir.hold(folder))
        yield


@contextlib.contextmanager
def log_file(workdir: Path) -> Iterator[None]:
    """Append this process's log records to WORKDIR/logs/process-I.log inside the context, and an exception that ends
    it."""
    folder = workdir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"process-{jax.process_index()}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("vlguard_jax")
    before = ours.propagate, ours.level
    ours.propagate = False  # its messages are on the terminal already
    ours.setLevel(logging.INFO)
    loggers = (ours, logging.getLogger())
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except Exception:
        ours.exception("stopped by an error")
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        ours.propagate = before[0]
        ours.setLevel(before[1])
        handler.close()


def agree(settings: Mapping[str, Any]) -> None:
    """Compare settings, packages and devices of all processes; every process must call it.

    Raises:
      UserError: a process differs from process 0; the first difference is named. Raised in every process.
    """
    if jax.process_count() > 1:
        if uneven := _uneven([(device.process_index, device.device_kind) for device in jax.devices()]):
            raise errors.UserError(uneven)
        _compare({"config": settings, "versions": _versions()})


def agree_on_files(digests: Mapping[str, str]) -> None:
    """Compare what the processes read, by {name for the user: digest}; every process must call it.

    Raises:
      UserError: as `agree`.
    """
    if jax.process_count() > 1:
        _compare({"files": digests})


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A UserError in the body ends all processes, each with that one line.

    Every process must enter; a body may be empty, and must not wait for another process.
    """
    if jax.process_count() == 1:
        yield
        return
    try:
        yield
    except errors.UserError as e:
        _tell_problem(f"process {jax.process_index()}: {e}")
    else:
        _tell_problem("")


def from_first(make: Callable[[], T]) -> T:
    """The JSON values that `make` returns in process 0, in every process. Only process 0 calls `make`; all must call
    this.

    Raises:
      UserError: raised by `make` in process 0, and then in every process.
    """
    if jax.process_count() == 1:
        return make()
    made = []
    with together():
        if jax.process_index() == 0:
            made.append(make())
    return json.loads(_from_first(json.dumps(made).encode()))[0]


def tell_failure(failure: Exception | None) -> None:
    """Raise what ended the work of process 0, None if nothing did; every process must call it.

    Raises:
      Exception: `failure`, in process 0. In the others, one with the same message, a UserError if `failure` is one,
        else a
      RuntimeError: the command ends alike in all processes (`machine.failure`).
    """
    if failure is not None and jax.process_count() == 1:
        raise failure
    if jax.process_count() == 1:
        return
    kind = "user" if isinstance(failure, errors.UserError) else type(failure).__name__
    told = json.loads(_from_first(json.dumps(None if failure is None else [kind, str(failure)]).encode()))
    if failure is not None:
        raise failure
    if told is not None:
        kind, words = told
        raise errors.UserError(f"process 0: {words}") if kind == "user" else RuntimeError(f"process 0: {kind}: {words}")


class Team:
    """All processes, as the `Team` of safety/run.py, which imports no JAX."""

    def __init__(self) -> None:
        self.first = jax.process_index() == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """See the function `from_first`."""
        return from_first(make)

    def say(self, notice: str) -> None:
        """Print, in the first process."""
        if self.first:
            terminal.say(notice)

    def agree(self, digests: Mapping[str, str]) -> None:
        """See `agree_on_files`."""
        agree_on_files(digests)


def _from_first(data: bytes) -> bytes:
    """The bytes of process 0, in every process."""
    room = np.zeros(int(multihost_utils.broadcast_one_to_all(np.int32(len(data)))), np.uint8)
    if jax.process_index() == 0:
        room[:] = np.frombuffer(data, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(room), np.uint8).tobytes()


def first_problem(problem: str) -> str:
    """The problem of the first process that has one, "" where none has; every process must call it, with its own."""
    if jax.process_count() == 1:
        return problem
    data = problem.encode()[:PROBLEM]
    own = np.frombuffer(data.ljust(PROBLEM, b"\0"), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(own), np.uint8)
    told = (row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows)
    return next(filter(None, told), "")


def _tell_problem(problem: str) -> None:
    """Raises UserError in all processes if one has a problem: that of the first with one."""
    if told := first_problem(problem):
        raise errors.UserError(told)


def _compare(facts: Mapping[str, Any]) -> None:
    own = json.dumps(facts, sort_keys=True).encode()
    first = _from_first(own)
    _tell_problem(_difference(jax.process_index(), json.loads(own), json.loads(first)))


def _difference(index: int, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The first difference to process 0 in a sentence, "" without one."""
    for section, way in WAYS.items():
        if ours.get(section) != theirs.get(section):
            name, own, first = _first_difference(ours[section], theirs[section], section)
            return f"process {index} has {name}={errors.short(own)}, process 0 has {errors.short(first)}; {way}"
    return ""


def _uneven(devices: list[tuple[int, str]]) -> str:
    """A sentence that names a process with other devices than process 0, "" if there is none; from process and kind of
    every device.

    Every process knows all devices. Host collectives, which compare the rest, need equally many in each process.
    """
    of: dict[int, list[str]] = {}
    for process, kind in devices:
        of.setdefault(process, []).append(kind)
    say = {
        process: " and ".join(f"{n} x {kind}" for kind, n in sorted(Counter(kinds).items()))
        for process, kinds in of.items()
    }
    other = next((process for process in sorted(say) if say[process] != say[0]), None)
    return (
        f"process {other} has {say[other]}, process 0 has {say[0]}; start every process on as many devices of one kind"
        if other
        else ""
    )


def _first_difference(ours: Any, theirs: Any, where: str) -> tuple[str, Any, Any]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                return _first_difference(ours.get(key), theirs.get(key), f"{where}.{key}")
    return where, ours, theirs


def _versions() -> dict[str, str]:
    """Versions of everything that may change a program or its result, this package's source included."""
    source = hashlib.sha256()
    root = Path(vlguard_jax.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if path.is_relative_to(root / shipped.IN_WHEEL):  # others than the package, which a checkout has elsewhere
            continue
        source.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    own = {"python": platform.python_version(), "source of vlguard_jax": source.hexdigest()[:12]}
    return own | versions.installed()
