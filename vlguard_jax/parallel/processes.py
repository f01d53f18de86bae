"""Several processes that run one program: how they find each other, and what they agree on before anything is computed.

- TPU pod or slice of several hosts: start the same command on every host; JAX finds the others by GKE's variables or by the metadata that
  Compute Engine serves to its TPU machines.
- SLURM: `srun` starts one process per task; JAX reads SLURM's variables.
- Plain hosts: JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0, JAX_NUM_PROCESSES and JAX_PROCESS_ID in every process.
- Anything else is one process, and nothing is started.

Each process notes in WORKDIR/logs/process-I.log what process 0 shows, and its own warnings; process 0 alone uses the terminal.

Who is missing at the start is said after VLGUARD_START_TIMEOUT seconds (default 300) in place of waiting for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
import contextlib
import ctypes
import dataclasses
import hashlib
from importlib import metadata
import json
import logging
import os
from pathlib import Path
import platform
import signal
import sys
import threading
from typing import Any, TypeVar
import urllib.error
import urllib.request

import jax
from jax.experimental import multihost_utils
import numpy as np

import vlguard_jax
from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import terminal
from vlguard_jax import workdir
from vlguard_jax.parallel import coordinator

TIMEOUT = 300  # seconds
GRACE = 60  # seconds that JAX waits longer than we do
TPU_PORT = 8482  # of JAX's coordinator on TPU machines
SLURMS = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST")
OURS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow", "sentencepiece")
PROBLEM = 1000  # bytes of a process's problem that the others are told
# Way out where processes differ in: what was asked for, what is installed, what they read.
WAYS = {
    "config": "start all with the same command",
    "versions": "install the same packages and the same checkout on every host",
    "files": "give every process the same files",
}

# JAX sets its handler in C, where Python cannot put it back.
_LIBC = ctypes.CDLL(None)
_LIBC.signal.restype = ctypes.c_void_p
_LIBC.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
_JAXS: list[int] = []

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Start:
    """How this process joins others. count, index, address: None where JAX finds them out by itself."""

    kind: str  # "one", "plain", "slurm" or "tpu"
    count: int | None = None
    index: int | None = None
    address: str | None = None


def detect(environment: Mapping[str, str]) -> Start:
    """How a process with these environment variables is to start.

    Raises:
      UserError: of the three variables for plain hosts some are missing;
        or a variable is not the number or the address that it has to be.
    """
    given = [name for name in OURS if environment.get(name)]
    if given:
        missing = [name for name in OURS if name not in given]
        if missing:
            raise errors.UserError(f"{', '.join(given)} set, but not {', '.join(missing)}; set all three in every process, or none")
        count, index = _number(environment, OURS[1], 1), _number(environment, OURS[2], 0)
        if index >= count:
            raise errors.UserError(f"JAX_PROCESS_ID={index} must be from 0 to JAX_NUM_PROCESSES - 1 = {count - 1}")
        address = environment[OURS[0]].strip()
        coordinator.port_of(address, OURS[0])
        return Start("plain", count, index, address)
    workers, slices = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES"), "MEGASCALE_NUM_SLICES"
    if not workers:
        workers, environment = _compute_engine(environment)
    hosts = len([name for name in workers.split(",") if name]) * _number(environment, slices, 1)
    if hosts > 1:
        return Start("tpu", hosts)
    if "SLURM_STEP_NODELIST" in environment and (tasks := _number(environment, "SLURM_NTASKS", 1)) > 1:
        return Start("slurm", tasks)
    return Start("one", 1)


def _opens(found: Start, environment: Mapping[str, str]) -> int | None:
    """The port at which this process is to wait for the others, as the first of all;
    None where it is another or not known.

    Raises:
      UserError: a variable that JAX reads is odd; JAX itself would name none.
    """
    for name in ("JAX_PARTITION_INDEX", "JAX_SLICE_INDEX"):
        _number(environment, name, 0)
    coordinator.local_devices(environment)
    if found.kind == "plain":
        return coordinator.bound(environment, found.address or "") if found.index == 0 else None
    if found.kind == "tpu":
        port = coordinator.port(environment, TPU_PORT)
        worker, part = _number(environment, "TPU_WORKER_ID", 0), _number(environment, "MEGASCALE_SLICE_ID", 0)
        return port if environment.get("TPU_WORKER_ID") and worker == part == 0 else None
    if missing := [name for name in SLURMS if not environment.get(name)]:
        raise errors.UserError(f"{', '.join(missing)} not set, though SLURM_NTASKS={found.count}; {_way(found)}")
    job, index, _ = (_number(environment, name, 0) for name in SLURMS[:3])
    if index >= (found.count or 1):
        raise errors.UserError(f"SLURM_PROCID={index} must be from 0 to SLURM_NTASKS - 1 = {(found.count or 1) - 1}; {_way(found)}")
    port = coordinator.port(environment, 65535 - 2**12 + 1 + job % 2**12)  # jax's rule
    return port if index == 0 else None


def _compute_engine(environment: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """Workers of the slice, and the environment with its count of slices, as a TPU machine of Compute Engine is told them; else ""."""
    if environment.get("TPU_SKIP_MDS_QUERY") or environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return "", environment  # JAX sets the former where there is no TPU
    workers = _metadata(environment, "worker-network-endpoints")
    pairs = (line.partition(":")[::2] for line in _metadata(environment, "tpu-env").splitlines()) if workers else ()
    told = {name.strip(): value.strip(" '\"") for name, value in pairs}
    return workers, {**{name: value for name, value in told.items() if name.startswith("MEGASCALE_")}, **environment}


def _metadata(environment: Mapping[str, str], key: str) -> str:
    """An attribute of this machine from Compute Engine's metadata server; "" where there is none, or no server."""
    host = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    asked = urllib.request.Request(f"http://{host}/computeMetadata/v1/instance/attributes/{key}", headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, TimeoutError):
        return ""


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A whole number from 1 (from 0 where the default is 0)."""
    given = environment.get(name) or str(default)
    if not (given.isascii() and given.isdigit() and len(given) < 10) or (default and not int(given)):
        raise errors.UserError(f"{name}={errors.short(given)} must be a whole number{', at least 1' if default else ''}")
    return int(given)


def start(environment: Mapping[str, str] | None = None) -> None:
    """Join the other processes, if there are any. To be called once, before anything asks JAX for its devices.

    Raises:
      UserError: see `detect`; or not all processes came in time.
    """
    environment = os.environ if environment is None else environment
    found = detect(environment)
    if found.kind == "one":
        return
    seconds = _number(environment, "VLGUARD_START_TIMEOUT", TIMEOUT)
    if (port := _opens(found, environment)) is not None:
        coordinator.check_free(port)
    print(f"waiting for {found.count} processes ({found.kind}), at most {seconds} s", flush=True)
    given = (found.address, found.count, found.index) if found.kind == "plain" else (None, None, None)
    late = f"not all of {found.count} processes came within {seconds} s; {_way(found)}"
    watch = threading.Timer(seconds, _give_up, (late,))
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(*given, initialization_timeout=seconds + GRACE)
    except Exception as e:  # jax raises what its transport raises
        reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise errors.UserError(f"{found.count} processes could not be joined: {reason}; {_way(found)}") from e
    finally:
        watch.cancel()
    take_sigterm()
    if found.kind == "tpu" and jax.process_count() < (found.count or 1):
        raise errors.UserError(
            f"this is one host of a slice of {found.count}, but only {jax.process_count()} joined; start the same command on every host "
            "(launch/ does)"
        )


def take_sigterm() -> None:
    """Let SIGTERM come to Python's handler, which ends this process, not to JAX's,
    which notes it for `reached_preemption_sync_point`.
    """
    ours = signal.getsignal(signal.SIGTERM)
    if callable(ours) and not _JAXS:
        _JAXS.append(_LIBC.signal(signal.SIGTERM, 0))
        signal.signal(signal.SIGTERM, ours)


def hand_over_sigterm() -> None:
    """Undo `take_sigterm`: JAX tells the other processes, and all agree on where to leave."""
    if _JAXS:
        _LIBC.signal(signal.SIGTERM, _JAXS.pop())


def _give_up(message: str) -> None:
    """The way out while JAX waits: its own time-out aborts the process with a stack trace. Nothing has been written yet."""
    print(f"error: {escape.line(message)}", file=sys.stderr, flush=True)
    os._exit(errors.EXIT_USER_ERROR)


def _way(found: Start) -> str:
    ways = {
        "tpu": f"this is one host of a slice of {found.count}; start the same command on every host (launch/ does)",
        "slurm": "start it with srun, one process for each task",
        "plain": f"check that JAX_COORDINATOR_ADDRESS={found.address} can be reached and that all {found.count} were started",
    }
    return ways[found.kind]


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """`workdir.hold` for all processes of this run: the first holds it. Raises UserError, in all, as there."""
    with contextlib.ExitStack() as held:
        with together():
            if jax.process_index() == 0:
                held.enter_context(workdir.hold(folder))
        yield


@contextlib.contextmanager
def log_file(workdir: Path) -> Iterator[None]:
    """While it is open, this process's log records are added to WORKDIR/logs/process-I.log; an exception that ends it is as well."""
    folder = workdir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"process-{jax.process_index()}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("vlguard_jax")
    before = ours.propagate, ours.level
    ours.propagate = False  # what it says is on the terminal already
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
    """Compare the settings of all processes, their packages and their devices; every one of them has to call it.

    Raises:
      UserError: a process differs from process 0; the first difference is named. Raised in every process.
    """
    if jax.process_count() > 1:
        if uneven := _uneven([(device.process_index, device.device_kind) for device in jax.devices()]):
            raise errors.UserError(uneven)
        _compare({"config": settings, "versions": _versions()})


def agree_on_files(digests: Mapping[str, str]) -> None:
    """Compare what the processes read, by digests under names for the user; every process has to call it.

    Raises:
      UserError: as `agree`.
    """
    if jax.process_count() > 1:
        _compare({"files": digests})


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A UserError in the body ends all processes, each with that one line. Every process has to come here; the body of one may be empty,
    and must not wait for another."""
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
    """What process 0 makes, JSON values, in every process; the others do not call `make`, but all have to come here.

    Raises:
      UserError: `make` did, in process 0. Raised in every process.
    """
    if jax.process_count() == 1:
        return make()
    made = []
    with together():
        if jax.process_index() == 0:
            made.append(make())
    return json.loads(_from_first(json.dumps(made).encode()))[0]


class Team:
    """All processes, in the form that safety/run.py, which knows no JAX, asks for."""

    def __init__(self) -> None:
        self.first = jax.process_index() == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """See the function of that name."""
        return from_first(make)

    def say(self, notice: str) -> None:
        """Print, in the first process."""
        if self.first:
            terminal.say(notice)

    def agree(self, digests: Mapping[str, str]) -> None:
        """See `agree_on_files`."""
        agree_on_files(digests)


def _from_first(data: bytes) -> bytes:
    """The bytes that process 0 has."""
    room = np.zeros(int(multihost_utils.broadcast_one_to_all(np.int32(len(data)))), np.uint8)
    if jax.process_index() == 0:
        room[:] = np.frombuffer(data, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(room), np.uint8).tobytes()


def _tell_problem(problem: str) -> None:
    """Raises UserError in all processes if one has a problem: that of the first who has."""
    data = problem.encode()[:PROBLEM]
    own = np.frombuffer(data.ljust(PROBLEM, b"\0"), np.uint8)
    for row in np.asarray(multihost_utils.process_allgather(own), np.uint8):
        if told := row.tobytes().rstrip(b"\0").decode(errors="ignore"):
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
    """In a sentence, which process has other devices than process 0, "" if none; from the process and the kind of every device.

    Every process knows them all. Collectives on hosts, by which we compare the rest, need as many in each.
    """
    of: dict[int, list[str]] = {}
    for process, kind in devices:
        of.setdefault(process, []).append(kind)
    say = {process: " and ".join(f"{n} x {kind}" for kind, n in sorted(Counter(kinds).items())) for process, kinds in of.items()}
    other = next((process for process in sorted(say) if say[process] != say[0]), None)
    return f"process {other} has {say[other]}, process 0 has {say[0]}; start every process on as many devices of one kind" if other else ""


def _first_difference(ours: Any, theirs: Any, where: str) -> tuple[str, Any, Any]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                return _first_difference(ours.get(key), theirs.get(key), f"{where}.{key}")
    return where, ours, theirs


def _versions() -> dict[str, str]:
    """Of everything that may change a program or its result, this package's source included."""
    source = hashlib.sha256()
    root = Path(vlguard_jax.__file__).parent
    for path in sorted(root.rglob("*.py")):
        source.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    own = {"python": platform.python_version(), "source of vlguard_jax": source.hexdigest()[:12]}
    return own | {name: metadata.version(name) for name in PACKAGES}
