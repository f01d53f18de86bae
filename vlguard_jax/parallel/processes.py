"""Several processes that run one program: how they find each other, and what they agree on before anything is computed.

- TPU pod or slice of several hosts: start the same command on every host; JAX finds the others by the slice's own metadata.
- SLURM: `srun` starts one process per task; JAX reads SLURM's variables.
- Plain hosts: JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0, JAX_NUM_PROCESSES and JAX_PROCESS_ID in every process.
- Anything else is one process, and nothing is started.

Who is missing at the start is said after VLGUARD_START_TIMEOUT seconds (default 300) in place of waiting for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import os
import sys
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from vlguard_jax import errors

TIMEOUT = 300  # seconds
GRACE = 60  # seconds that JAX waits longer than we do
OURS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
LONGEST = 1 << 20  # bytes of settings that processes show each other


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
      UserError: of the three variables for plain hosts some are missing or not numbers.
    """
    given = [name for name in OURS if environment.get(name)]
    if given:
        missing = [name for name in OURS if name not in given]
        if missing:
            raise errors.UserError(f"{', '.join(given)} set, but not {', '.join(missing)}; set all three in every process, or none")
        count, index = (_number(environment, name) for name in OURS[1:])
        if not 0 <= index < count:
            raise errors.UserError(f"JAX_PROCESS_ID={index} must be from 0 to JAX_NUM_PROCESSES - 1 = {count - 1}")
        return Start("plain", count, index, environment[OURS[0]])
    hosts = [name for name in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]
    slices = int(environment.get("MEGASCALE_NUM_SLICES") or 1)
    if len(hosts) * slices > 1:
        return Start("tpu", len(hosts) * slices)
    if int(environment.get("SLURM_NTASKS") or 1) > 1 and "SLURM_STEP_NODELIST" in environment:
        return Start("slurm", int(environment["SLURM_NTASKS"]))
    return Start("one", 1)


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise errors.UserError(f"{name}={environment[name]!r} must be a whole number") from None


def start(environment: Mapping[str, str] | None = None) -> None:
    """Join the other processes, if there are any. To be called once, before anything asks JAX for its devices.

    Raises:
      UserError: see `detect`; or not all processes came in time.
    """
    environment = os.environ if environment is None else environment
    found = detect(environment)
    if found.kind == "one":
        return
    seconds = int(environment.get("VLGUARD_START_TIMEOUT") or TIMEOUT)
    print(f"waiting for {found.count} processes ({found.kind}), at most {seconds} s", flush=True)
    given = (found.address, found.count, found.index) if found.kind == "plain" else (None, None, None)
    watch = threading.Timer(seconds, _give_up, (_missing(found, seconds),))
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(*given, initialization_timeout=seconds + GRACE)
    except Exception as e:  # jax raises what its transport raises
        raise errors.UserError(f"{_missing(found, seconds)} ({(str(e).splitlines() or [type(e).__name__])[0][:200]})") from e
    finally:
        watch.cancel()
    if found.kind == "tpu" and jax.process_count() < (found.count or 1):
        raise errors.UserError(
            f"this is one host of a slice of {found.count}, but only {jax.process_count()} joined; start the same command on every host "
            "(launch/ does)"
        )


def _give_up(message: str) -> None:
    """The way out while JAX waits: its own time-out aborts the process with a stack trace. Nothing has been written yet."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(errors.EXIT_USER_ERROR)


def _missing(found: Start, seconds: int) -> str:
    ways = {
        "tpu": f"this is one host of a slice of {found.count}; start the same command on every host (launch/ does)",
        "slurm": "start it with srun, one process for each task",
        "plain": f"check that JAX_COORDINATOR_ADDRESS={found.address} can be reached and that all {found.count} were started",
    }
    return f"not all of {found.count} processes came within {seconds} s; {ways[found.kind]}"


def agree(settings: Mapping[str, Any]) -> None:
    """Compare the settings of all processes; every one of them has to call it.

    Raises:
      UserError: process 0 has another setting; the first is named. Raised in every process.
    """
    if jax.process_count() == 1:
        return
    own = json.dumps(settings, sort_keys=True).encode()
    if len(own) > LONGEST:
        raise errors.UserError(f"the config takes {len(own)} bytes as JSON; processes compare at most {LONGEST}")
    room = np.zeros(LONGEST, np.uint8)
    room[: len(own)] = np.frombuffer(own, np.uint8)
    first = bytes(multihost_utils.broadcast_one_to_all(room)).rstrip(b"\0")
    differ = multihost_utils.process_allgather(np.asarray(first != own))
    if not differ.any():
        return
    others = [int(i) for i in np.flatnonzero(differ)]
    if first == own:
        raise errors.UserError(f"process {others[0]} was started with another config than process 0; start all with the same command")
    name, ours, theirs = _first_difference(json.loads(own), json.loads(first))
    raise errors.UserError(
        f"process {jax.process_index()} has config.{name}={ours!r}, process 0 has {theirs!r}; start all with the same command"
    )


def _first_difference(ours: Any, theirs: Any, where: str = "") -> tuple[str, Any, Any]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                return _first_difference(ours.get(key), theirs.get(key), f"{where}.{key}" if where else key)
    return where, ours, theirs
