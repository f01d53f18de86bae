"""One trial in a process of its own: limited memory and time, every act on the machine watched, the outcome in one
word.

Python's audit events show what a reader does: starts of programs, connections, files opened outside the trial's folder.
What native code does shows in what it leaves: a file that was not there, a type that has changed, a signal.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import faulthandler
import hashlib
import json
import os
import pathlib
import resource
import select
import signal
import stat
import sys
import time
import unicodedata

import ml_dtypes
import numpy as np

from vlguard_jax import errors

MEMORY = 1 << 30  # bytes that a trial may add
ROOM = 4 << 30  # bytes of addresses, so that a trial that goes far beyond does not take the machine along
SECONDS = 10  # of one core
# seconds of the clock, for a trial that waits for ever, which uses no core; SECONDS take this long on a busy machine
WAIT = 300
LONGEST = 2000  # characters of a message

REFUSED, HARMLESS, WRONG, OVER_REFUSED = "refused", "harmless", "silently wrong", "wrongly refused"
TRACEBACK, CRASHED, EXECUTED, ESCAPED, MEMORY_OUT, TIME_OUT = (
    "traceback",
    "crashed",
    "executed",
    "escaped",
    "memory",
    "time",
)
GOOD = (REFUSED, HARMLESS)
OUTCOMES = (*GOOD, WRONG, OVER_REFUSED, TRACEBACK, CRASHED, EXECUTED, ESCAPED, MEMORY_OUT, TIME_OUT)

_STARTS = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "pty.spawn",
    "os.fork",
)
_NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request")
_TURNS = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"  # of the direction of writing
_CHANGES = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
)


class Anything:
    """Stands for every value: the trial only has to end in an orderly way."""


class Nothing:
    """Stands for no value: only a refusal is right."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is done with one hostile input.

    what: in words. read: the reader under test, run in the child; its value is compared with `right`. A refusal is
    right, too, unless `must_read` (the input is sound). Both values must be JSON.
    """

    what: str
    read: Callable[[], object]
    right: object = Nothing
    must_read: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a trial ended: one of OUTCOMES, and why."""

    word: str
    detail: str = ""


class _Watch:
    """Notes the first act that a reader has no business doing."""

    def __init__(self, folder: pathlib.Path):
        self._inside = os.path.realpath(folder)
        self._around = os.path.dirname(self._inside)
        self.found: Outcome | None = None

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.found is not None:
            return
        if event in _STARTS:
            self.found = Outcome(EXECUTED, f"{event} {arguments!r}"[:300])
        elif event in _NETWORK:
            self.found = Outcome(ESCAPED, f"{event} {arguments!r}"[:300])
        elif event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            )
            if self._outside(path) and (writes or self._planted(path)):
                self.found = Outcome(ESCAPED, f"open {path!r} {mode!r}"[:300])
        elif event in _CHANGES and any(self._outside(a) for a in arguments if isinstance(a, (str, bytes))):
            self.found = Outcome(ESCAPED, f"{event} {arguments!r}"[:300])

    def _outside(self, path: object) -> bool:
        if not isinstance(path, (str, bytes)):
            return False
        real = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path))))
        return real != self._inside and not real.startswith(self._inside + os.sep) and os.fsdecode(path) != os.devnull

    def _planted(self, path: object) -> bool:
        """Beside the trial's folder: nothing there may even be read."""
        return os.path.realpath(os.fsdecode(path)).startswith(self._around + os.sep)  # type: ignore[type-var]


def run(trial: Trial, folder: pathlib.Path, *, seconds: int = SECONDS, wait: float = WAIT) -> Outcome:
    """Read in a child process. `folder` is the trial's own; what lies beside it is out of bounds."""
    before = listing(folder.parent, without=folder)
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        _in_child(trial, folder, sink, seconds)
    os.close(sink)
    said, late = _listen(source, wait)
    os.close(source)
    if late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if (after := listing(folder.parent, without=folder)) != before:
        changed = min(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        return Outcome(ESCAPED, f"beside the folder: {changed!a} is not as it was")
    if late:
        return Outcome(TIME_OUT, f"nothing after {wait:g} s")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Outcome(TIME_OUT if number == signal.SIGXCPU else CRASHED, signal.Signals(number).name)
    return Outcome(*json.loads(said)) if said else Outcome(CRASHED, f"exit code {os.WEXITSTATUS(status)}")


def listing(top: pathlib.Path, without: pathlib.Path | None = None) -> dict[str, str]:
    """Everything below `top` by its path: what it is, its mode, and the hash of a file or the place that a link leads
    to."""
    found: dict[str, str] = {}
    waiting = [top]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            if without is not None and entry.path == os.fspath(without):
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            content = ""
            if stat.S_ISDIR(mode):
                waiting.append(pathlib.Path(entry.path))
            elif stat.S_ISREG(mode):
                content = hashlib.sha256(pathlib.Path(entry.path).read_bytes()).hexdigest()
            elif stat.S_ISLNK(mode):
                content = os.readlink(entry.path)
            found[os.path.relpath(entry.path, top)] = f"{stat.filemode(mode)} {content}"
    return found


def _listen(source: int, wait: float) -> tuple[bytes, bool]:
    """(all that the child says, whether it was still silent at the end)."""
    said, end = b"", time.monotonic() + wait
    while (left := end - time.monotonic()) > 0:
        if select.select([source], [], [], left)[0]:
            part = os.read(source, 1 << 16)
            if not part:
                return said, False
            said += part
    return said, True


def _in_child(trial: Trial, folder: pathlib.Path, sink: int, seconds: int) -> None:
    faulthandler.disable()  # a crash is an outcome here, which needs no report
    sys.dont_write_bytecode = True
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ROOM, _status("VmSize") + ROOM))
    os.chdir(folder)
    outcome = _judge(trial, folder)
    os.write(sink, json.dumps([outcome.word, outcome.detail[:LONGEST]]).encode())
    os._exit(0)


def _judge(trial: Trial, folder: pathlib.Path) -> Outcome:
    watch, resident = _Watch(folder), _status("VmRSS")
    sys.addaudithook(watch)
    try:
        outcome = _compared(trial, trial.read())
    except errors.UserError as e:
        outcome = Outcome(OVER_REFUSED if trial.must_read else REFUSED, str(e))
        if problem := _unfit(str(e)):
            outcome = Outcome(TRACEBACK, f"{problem}: {str(e)[:500]!r}")
    except MemoryError:
        outcome = Outcome(MEMORY_OUT, "MemoryError")
    except RecursionError as e:
        outcome = Outcome(TRACEBACK, f"RecursionError: {e}")
    except BaseException as e:
        outcome = Outcome(TRACEBACK, f"{type(e).__name__}: {e}")
    if watch.found is not None:
        return watch.found
    if damage := _damage():
        return Outcome(EXECUTED, damage)
    if _status("VmHWM") - resident > MEMORY:
        return Outcome(MEMORY_OUT, f"{(_status('VmHWM') - resident) >> 20} MiB")
    return outcome


def _compared(trial: Trial, value: object) -> Outcome:
    if trial.right is Anything:
        return Outcome(HARMLESS)
    if trial.right is Nothing:
        return Outcome(WRONG, f"accepted: {value!r}"[:500])
    same = json.dumps(value, sort_keys=True) == json.dumps(trial.right, sort_keys=True)
    return Outcome(HARMLESS) if same else Outcome(WRONG, f"{value!r} in place of {trial.right!r}"[:500])


def _unfit(message: str) -> str:
    """Why a message cannot be shown in a terminal as one line; "" if it can."""
    if len(message) > LONGEST:
        return f"message of {len(message)} characters"
    bad = next(
        (
            c
            for c in message
            if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
        ),
        "",
    )
    return f"message with U+{ord(bad):04X}" if bad else ""


def _damage() -> str:
    """What the reader changed in this process that others rely on."""
    sizes = {np.float16: 2, ml_dtypes.bfloat16: 2, np.float32: 4, np.float64: 8, np.int64: 8, np.uint8: 1, np.bool_: 1}
    changed = [
        kind.__name__
        for kind, size in sizes.items()
        if np.dtype(kind).itemsize != size or np.ones(3, kind).nbytes != 3 * size
    ]
    return f"item size of {changed[0]} changed" if changed else ""


def _status(name: str) -> int:
    """A figure of /proc/self/status in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
