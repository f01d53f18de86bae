"""Devices of a slice that is not here, for the compiler: libtpu describes and compiles for every TPU on a machine that has none."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import jax
from jax.experimental import topologies

from vlguard_jax import errors
from vlguard_jax.planning import chips

ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a description takes no chip: neither do others keep us out, nor we them
    "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",  # both are of the machine here, and asked for loudly; the description says its own
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def devices(topology: chips.Topology) -> list[jax.Device]:
    """The devices of a TPU topology, slice after slice, to build a mesh on and to compile for.

    Raises:
      UserError: libtpu is missing, held by another process, or does not know the slice or not as JAX has it; or the slice is of GPUs,
        whose compiler wants a description of the device.
    """
    if topology.chip.kind != "tpu":
        raise errors.UserError(f"{topology.name}: plan compiles for TPUs; add --estimate for {topology.chip.name}")
    if importlib.util.find_spec("libtpu") is None:
        raise errors.UserError('the TPU compiler (libtpu) is not installed: pip install "vlguard_jax[tpu]", or add --estimate')
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    size = "x".join(map(str, topology.shape))
    try:
        found = topologies.get_topology_desc(topology_name=f"{topology.chip.name}:{size}", platform="tpu", **_options(topology))
    except (RuntimeError, ValueError) as e:  # XlaRuntimeError is a RuntimeError
        raise errors.UserError(_refused(topology, str(e))) from e
    if len(found.devices) != topology.devices:
        raise errors.UserError(
            f"libtpu describes {topology.name} by {len(found.devices)} devices, JAX has {topology.devices}; try --estimate"
        )
    return list(found.devices)


def _options(topology: chips.Topology) -> dict[str, Any]:
    options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.chips == topology.slices:
        options["chips_per_host_bounds"] = (1,) * 3  # libtpu before 0.0.50 takes a host to hold four or eight
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # its two cores are one device, as JAX has them on the chip
    return options


def _refused(topology: chips.Topology, message: str) -> str:
    if "lockfile" in message:
        return (
            "another process on this machine holds libtpu, and ALLOW_MULTIPLE_LIBTPU_LOAD is off; unset it, wait for the process, or add "
            "--estimate"
        )
    first, near = (message.splitlines() or [""])[0], chips.nearest(topology).name
    other = f"the nearest usual slice is {near}" if near != topology.name else "try --estimate"
    return f"libtpu does not know {topology.name}: {first}; {other}"
