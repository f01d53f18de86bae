"""Devices of a slice that is not here, for the compiler: libtpu describes and compiles for every TPU on a machine that has none."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import jax
from jax.experimental import topologies

from vlguard_jax import errors
from vlguard_jax.planning import chips

SILENT = {"TPU_SKIP_MDS_QUERY": "1", "TPU_STDERR_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3"}  # no metadata server; no talk of worker names


def devices(topology: chips.Topology) -> list[jax.Device]:
    """The devices of a TPU topology, slice after slice, to build a mesh on and to compile for.

    Raises:
      UserError: libtpu is missing, or does not know the slice or not as JAX has it; or the slice is of GPUs, whose compiler wants a description of the device.
    """
    if topology.chip.kind != "tpu":
        raise errors.UserError(f"{topology.name}: plan compiles for TPUs; add --estimate for {topology.chip.name}")
    if importlib.util.find_spec("libtpu") is None:
        raise errors.UserError('the TPU compiler (libtpu) is not installed: pip install "vlguard_jax[tpu]", or add --estimate')
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.chips == topology.slices:
        options["chips_per_host_bounds"] = (1,) * 3  # libtpu before 0.0.50 takes a host to hold four or eight
    size = "x".join(map(str, topology.shape))
    try:
        found = topologies.get_topology_desc(topology_name=f"{topology.chip.name}:{size}", platform="tpu", **options)
    except (RuntimeError, ValueError) as e:  # XlaRuntimeError is a RuntimeError
        raise errors.UserError(f"libtpu does not know {topology.name}: {str(e).splitlines()[0]}; try --estimate") from e
    if len(found.devices) != topology.devices:  # libtpu describes a v4 by its two cores, which the real chip shows as one device
        raise errors.UserError(
            f"libtpu describes {topology.name} by {len(found.devices)} devices, JAX has {topology.devices}; try --estimate"
        )
    return list(found.devices)
