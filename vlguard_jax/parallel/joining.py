"""How the processes of one program find each other.

- TPU pod or slice of several hosts: start the same command on every host; JAX finds the others by GKE's variables or by
  the metadata that Compute Engine serves to its TPU machines.
- SLURM: `srun` starts one process per task; JAX reads SLURM's variables.
- Plain hosts: JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0, JAX_NUM_PROCESSES and JAX_PROCESS_ID in every process.
- Anything else is one process, and nothing is started.

If processes are missing, the start fails with a message after VLGUARD_START_TIMEOUT seconds (default 300).
"""

from __future__ import annotations

from collections.abc import Mapping
import ctypes
import dataclasses
import os
import signal
import sys
import threading
import urllib.error
import urllib.request

import jax

from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import terminal
from vlguard_jax.parallel import coordinator

TIMEOUT = 300  # seconds
GRACE = 60  # seconds that JAX waits longer than we do
TPU_PORT = 8482  # of JAX's coordinator on TPU machines
SLURMS = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST")
OURS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# JAX sets its handler in C, where Python cannot put it back.
_LIBC = ctypes.CDLL(None)
_LIBC.signal.restype = ctypes.c_void_p
_LIBC.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
_JAXS: list[int] = []


@dataclasses.dataclass(frozen=True)
class Start:
    """How this process joins the others. count, index, address: None where JAX detects them."""

    kind: str  # "one", "plain", "slurm" or "tpu"
    count: int | None = None
    index: int | None = None
    address: str | None = None


def detect(environment: Mapping[str, str]) -> Start:
    """How a process with these environment variables is to start.

    Raises:
      UserError: some of the three variables for plain hosts are missing, or a variable is not a valid number or
        address.
    """
    given = [name for name in OURS if environment.get(name)]
    if given:
        missing = [name for name in OURS if name not in given]
        if missing:
            raise errors.UserError(
                f"{', '.join(given)} set, but not {', '.join(missing)}; set all three in every process, or none"
            )
        count, index = _number(environment, OURS[1], 1), _number(environment, OURS[2], 0)
        if index >= count:
            raise errors.UserError(f"JAX_PROCESS_ID={index} must be from 0 to JAX_NUM_PROCESSES - 1 = {count - 1}")
        address = environment[OURS[0]].strip()
        coordinator.port_of(address, OURS[0])
        return Start("plain", count, index, address)
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if not workers:
        workers, environment = _compute_engine(environment)
    slices = _number(environment, "MEGASCALE_NUM_SLICES", 1)
    hosts = len([name for name in workers.split(",") if name]) * slices
    if hosts > 1:
        return Start("tpu", hosts)
    if "SLURM_STEP_NODELIST" in environment and (tasks := _number(environment, "SLURM_NTASKS", 1)) > 1:
        return Start("slurm", tasks)
    return Start("one", 1)


def _opens(found: Start, environment: Mapping[str, str]) -> int | None:
    """The port on which this process is to wait for the others if it is the first; None if it is not, or not known to
    be.

    Raises:
      UserError: a variable that JAX reads is malformed; JAX itself would not name it.
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
        raise errors.UserError(
            f"SLURM_PROCID={index} must be from 0 to SLURM_NTASKS - 1 = {(found.count or 1) - 1}; {_way(found)}"
        )
    port = coordinator.port(environment, 65535 - 2**12 + 1 + job % 2**12)  # jax's rule
    return port if index == 0 else None


def _compute_engine(environment: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """The slice's workers, and the environment with the number of slices, from Compute Engine's metadata; "" on other
    machines."""
    if environment.get("TPU_SKIP_MDS_QUERY") or environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return "", environment  # JAX sets the former without a TPU
    workers = _metadata(environment, "worker-network-endpoints")
    pairs = (line.partition(":")[::2] for line in _metadata(environment, "tpu-env").splitlines()) if workers else ()
    told = {name.strip(): value.strip(" '\"") for name, value in pairs}
    return workers, {**{name: value for name, value in told.items() if name.startswith("MEGASCALE_")}, **environment}


def _metadata(environment: Mapping[str, str], key: str) -> str:
    """An attribute of this machine from Compute Engine's metadata server; "" where there is none, or no server."""
    host = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    asked = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/attributes/{key}", headers={"Metadata-Flavor": "Google"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, TimeoutError):
        return ""


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A whole number, at least 1 (0 where the default is 0)."""
    given = environment.get(name) or str(default)
    if not (given.isascii() and given.isdigit() and len(given) < 10) or (default and not int(given)):
        raise errors.UserError(
            f"{name}={errors.short(given)} must be a whole number{', at least 1' if default else ''}"
        )
    return int(given)


def start(environment: Mapping[str, str] | None = None) -> None:
    """Join the other processes, if there are any. Call it once, before anything asks JAX for its devices.

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
    terminal.say(f"waiting for {found.count} processes ({found.kind}), at most {seconds} s")
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
            f"this is one host of a slice of {found.count}, but only {jax.process_count()} joined; start the same"
            " command on every host (launch/ does)"
        )


def take_sigterm() -> None:
    """Let Python's handler, which ends this process, receive SIGTERM instead of JAX's, which notes it for
    `reached_preemption_sync_point`.
    """
    ours = signal.getsignal(signal.SIGTERM)
    if callable(ours) and not _JAXS:
        _JAXS.append(_LIBC.signal(signal.SIGTERM, 0))
        signal.signal(signal.SIGTERM, ours)


def hand_over_sigterm() -> None:
    """Undo `take_sigterm`: JAX tells the other processes, and all agree on where to stop."""
    if _JAXS:
        _LIBC.signal(signal.SIGTERM, _JAXS.pop())


def _give_up(message: str) -> None:
    """End the process with a message while JAX waits: its own time-out aborts with a stack trace.

    Nothing has been written yet.
    """
    print(f"error: {escape.line(message)}", file=sys.stderr, flush=True)
    os._exit(errors.EXIT_USER_ERROR)


def _way(found: Start) -> str:
    ways = {
        "tpu": f"this is one host of a slice of {found.count}; start the same command on every host (launch/ does)",
        "slurm": "start it with srun, one process for each task",
        "plain": f"check that JAX_COORDINATOR_ADDRESS={found.address} can be reached and that all {found.count}"
        " were started",
    }
    return ways[found.kind]
