"""Tells failures of the machine from bugs: a full disk, missing permissions, no memory, a missing device or port."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
import contextlib
import dataclasses
import errno
import importlib.util
import os
import pathlib
import re
import traceback

from vlguard_jax import errors
from vlguard_jax import escape

SAFE = "what was finished before is kept"
_AGAIN = "start the same command again to go on"
_ELSEWHERE = "make room or name another place, and start the same command again"
_RIGHTS = "give this user permission, or name another place"
_PATH = "name another place"

# errno -> what it is, what to do. The user has to act before the command can continue.
_USERS = {
    errno.ENOSPC: ("no space left on the disk", _ELSEWHERE),
    errno.EDQUOT: ("the disk quota is used up", _ELSEWHERE),
    errno.EFBIG: ("the file is larger than the file system or `ulimit -f` allows", _ELSEWHERE),
    errno.EACCES: ("permission denied", _RIGHTS),
    errno.EPERM: ("not permitted", _RIGHTS),
    errno.EROFS: ("the file system is read-only", _PATH),
    errno.ENOTDIR: ("a part of this path is a file, where a folder must be", _PATH),
    errno.EISDIR: ("this is a folder, where a file must be", _PATH),
    errno.ENAMETOOLONG: ("the name is too long for the file system", _PATH),
    errno.ELOOP: ("links that lead to each other", _PATH),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many open files on this machine", "end other programs"),
    errno.ENOMEM: ("out of memory", "end other programs or use a larger machine"),
    errno.EADDRINUSE: ("the port is in use", "choose another, or end the program that has it"),
    errno.EADDRNOTAVAIL: ("this address is not one of this machine", "name another"),
    errno.ENODEV: ("no such device", _PATH),
    errno.ENXIO: ("no such device", _PATH),
    errno.EPIPE: ("the reader of the output has gone", _AGAIN),
}
# Only known: the same command can continue later.
_PASSING = {
    errno.EIO: "input/output error",
    errno.ESTALE: "the file server has lost this file",
    errno.ETIMEDOUT: "no answer in time",
    errno.ENOTCONN: "the connection is broken",
    errno.ECONNRESET: "the other side broke the connection",
    errno.ECONNABORTED: "the connection broke",
    errno.ECONNREFUSED: "the other side refuses the connection",
    errno.EHOSTUNREACH: "the other machine cannot be reached",
    errno.ENETUNREACH: "the network cannot be reached",
    errno.ENETDOWN: "the network is down",
    errno.EREMOTEIO: "the remote disk failed",
    errno.EBUSY: "the device or file is busy",
}
# Only as the end of a command: where a file is read, a missing one is reported by its reader.
_PLACES = {
    errno.ENOENT: ("no such file or folder", "name one that is there"),
    errno.EEXIST: ("something is there already", _PATH),
    errno.ENOTEMPTY: ("the folder is not empty", _PATH),
}
# Likewise, that it is not a file, or not a folder.
_KINDS = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
# How libraries write an errno into their own errors: safetensors, TensorStore, Python.
_NUMBER = re.compile(r"\(os error (\d+)\)|\[os_error_code='(\d+)'\]|\[Errno (\d+)\]")
_QUOTED = re.compile(r"""["'](/[^"']+)["']""")
_BROKEN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED")  # of XLA: another process or its machine is gone
_GLOO = re.compile(r"[A-Z_]+: Gloo \w+ failed")
_GONE = "another process of this run has gone"
_WRITING = "writing "  # starts a note on an error
_LONGEST = 300  # characters of a path, or of a library's own words


@dataclasses.dataclass(frozen=True)
class Failure:
    """One line for the user, and the exit code: 2 if the user has to act, 75 if starting again continues the work."""

    line: str
    code: int


def failure(error: BaseException, *, places: bool = True) -> Failure | None:
    """What failed, if `error` or a cause of it is a failure of the machine; None for a bug.

    Without `places`, a missing file or one of the wrong kind does not count, for callers that can say more about it.
    """
    for each, raised in _chain(error):
        if not places and isinstance(each, OSError) and each.errno in _KINDS:
            continue
        here = places and raised
        if found := _system(each, here) or _memory(each) or _device(each) or _worded(each, here):
            return found
    return None


def alone(error: BaseException) -> bool:
    """Whether `error` says that another process of this run has gone. JAX's own end would wait for it, and abort."""
    found = failure(error)
    return found is not None and found.line.startswith(_GONE)


def full(error: BaseException) -> str | None:
    """What is full, if `error` or a cause of it says that nothing more can be written here; else None."""
    found = failure(error)
    kinds = (_USERS[number][0] for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    return next((kind for kind in kinds if found and kind in found.line), None)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], beside: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Make failures of the body name `path` if they name no file, as from `write`, or a temporary file `beside`."""
    try:
        yield
    except OSError as e:
        named = e.filename if isinstance(e.filename, str | bytes) else ""
        if not named or (beside is not None and os.fsdecode(named).startswith(os.fspath(beside))):
            e.filename, e.filename2 = os.fspath(path), None
        raise
    except Exception as e:
        e.add_note(f"{_WRITING}{os.fspath(path)}")
        raise


def _chain(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """The error and its causes (True), then exceptions that were being handled when one of them was raised (False)."""
    seen: set[int] = set()
    waiting: list[tuple[BaseException | None, bool]] = [(error, True)]
    while waiting:
        each, raised = waiting.pop(0)
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each, raised
            group = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
            waiting += [(each.__cause__, raised), *((part, raised) for part in group), (each.__context__, False)]


def _system(error: BaseException, places: bool) -> Failure | None:
    if not isinstance(error, OSError) or error.errno is None:
        return None
    return _numbered(error.errno, error.filename2 or error.filename, places)


def _numbered(number: int, path: object, places: bool) -> Failure | None:
    name = os.fsdecode(path) if isinstance(path, str | bytes) else ""
    where = f"{escape.line(name, _LONGEST)}: " if name else ""
    if number == errno.EPIPE:
        what, way = _USERS[number]
        return Failure(f"{what}; {way}", errors.EXIT_RESTART)
    if number in _PASSING:
        return Failure(f"{where}{_PASSING[number]}; {SAFE}, {_AGAIN}", errors.EXIT_RESTART)
    if number in _USERS:
        what, way = _USERS[number]
        return Failure(f"{where}{what}; {SAFE}; {way}", errors.EXIT_USER_ERROR)
    if places and number in _PLACES and name:
        what, way = _PLACES[number]
        return Failure(f"{where}{what}; {way}", errors.EXIT_USER_ERROR)
    return None


def _memory(error: BaseException) -> Failure | None:
    text = _first_line(error)
    if isinstance(error, MemoryError):
        return Failure(
            f"out of memory{': ' + text if text else ''}; {SAFE}; end other programs, use a larger machine or"
            " smaller batches",
            errors.EXIT_USER_ERROR,
        )
    if _of_xla(error) and text.startswith("RESOURCE_EXHAUSTED"):
        way = (
            "make batches smaller (config.data.batch_size with group_size, config.decode.batch_size), or use more"
            " devices; plan computes it"
        )
        return Failure(f"out of memory on the device: {text.partition(': ')[2]}; {SAFE}; {way}", errors.EXIT_USER_ERROR)
    return None


def _device(error: BaseException) -> Failure | None:
    text = _first_line(error)
    if (isinstance(error, RuntimeError) and text.startswith("Unable to initialize backend")) or _without_backend(error):
        asked = os.environ.get("JAX_PLATFORMS")
        named = f"JAX_PLATFORMS={asked}: " if asked else ""
        why = f" ({text.partition(': ')[2].partition(' (set JAX_PLATFORMS')[0]})" if text else ""
        return Failure(
            f"{named}no such device can be used here{why}; unset it, or install JAX for this device",
            errors.EXIT_USER_ERROR,
        )
    gloo = isinstance(error, ValueError) and _GLOO.match(text)  # as which jaxlib passes some of Gloo's errors on
    if gloo or (_of_xla(error) and (text.startswith(_BROKEN) or "Gloo" in text or "onnection" in text)):
        return Failure(f"{_GONE} ({text}); {SAFE}, {_AGAIN}", errors.EXIT_RESTART)
    return None


def _worded(error: BaseException, places: bool) -> Failure | None:
    """A library's error that has a system error only in its message."""
    if isinstance(error, OSError | errors.UserError) or not isinstance(error, Exception):
        return None
    text = str(error)
    if type(error).__name__ != "SafetensorError" and not isinstance(error, ValueError | RuntimeError):
        return None
    notes = [note.removeprefix(_WRITING) for note in getattr(error, "__notes__", ()) if note.startswith(_WRITING)]
    path = notes[-1] if notes else next(iter(_QUOTED.findall(text)), "")
    if match := _NUMBER.search(text):
        return _numbered(int(match[1] or match[2] or match[3]), path, places)
    for number in (*_USERS, *_PASSING):
        if text.rstrip().endswith(f": {os.strerror(number)}"):
            return _numbered(number, path, places)
    return None


def _of_xla(error: BaseException) -> bool:
    return type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")


def _without_backend(error: BaseException) -> bool:
    """Whether JAX failed an assertion, its only sign of a known platform without a plugin."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        isinstance(error, AssertionError)
        and bool(frames)
        and frames[-1].filename.endswith(os.path.join("jax", "_src", "xla_bridge.py"))
    )


def _first_line(error: BaseException) -> str:
    text = " ".join(next((line for line in str(error).splitlines() if line.strip()), "").split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


_PLATFORM = "JAX_PLATFORMS"
_GOOGLE = "0x1ae0"  # PCI vendor of TPU chips
# Of TPUs, NVIDIA, WSL and AMD.
_DEVICES = ("dev/accel*", "dev/vfio/*", "dev/nvidia*", "dev/dxg", "dev/kfd")


def leave_tpu_out(environment: MutableMapping[str, str], root: pathlib.Path = pathlib.Path("/")) -> None:
    """Let JAX use the CPU, where the environment names no platform, libtpu is installed (as a compiler: `make aot`) and
    no sign of a TPU or GPU is there: JAX would try the TPU and libtpu complain about it in five lines.

    Call it before jax is imported. root: of the file system.
    """
    told = any(name.startswith(("TPU_", "JAX_FORCE_TPU")) for name in environment)
    if _PLATFORM in environment or told or not importlib.util.find_spec("libtpu"):
        return
    vendors = (path.read_text().strip() for path in root.glob("sys/bus/pci/devices/*/vendor"))
    if _GOOGLE not in vendors and not any(any(root.glob(pattern)) for pattern in _DEVICES):
        environment[_PLATFORM] = "cpu"
