"""Devices of an absent slice, for the compiler: libtpu describes and compiles for every TPU on a machine without one,
JAX's CUDA plugin for GPUs whose description it is given."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import string
from typing import Any

import jax
from jax.experimental import topologies

from vlguard_jax import errors
from vlguard_jax import versions
from vlguard_jax.planning import chips

ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a description takes no chip, and so needs no lock
    "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask
    # both describe this machine, and libtpu warns without them; the topology's description has its own
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
CUDA_ENVIRONMENT = {
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # there is no driver whose version could be checked
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
CUDA_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"  # there is no GPU to try kernels on
CUDA_TARGET = pathlib.Path(__file__).with_name("hopper.txtpb")
HOPPER = ("h100", "h200")


def _prepare(chip: chips.Chip) -> None:
    """Set the environment variables that the chip's compiler reads when loaded, except those that the user set."""
    for name, value in (ENVIRONMENT if chip.kind == "tpu" else CUDA_ENVIRONMENT).items():
        os.environ.setdefault(name, value)
    given = os.environ.get("XLA_FLAGS", "")
    if chip.kind == "gpu" and "xla_gpu_autotune_level" not in given:
        os.environ["XLA_FLAGS"] = f"{given} {CUDA_FLAGS}".strip()


def devices(topology: chips.Topology) -> list[jax.Device]:
    """The devices of a topology, slice by slice, to build a mesh on and to compile for.

    Raises:
      UserError: the compiler is missing, locked by another process, does not know the slice, or describes it unlike
        JAX; or there is no description of the GPU.
    """
    _prepare(topology.chip)
    try:
        found = _tpus(topology) if topology.chip.kind == "tpu" else _gpus(topology)
    except (RuntimeError, ValueError) as e:  # XlaRuntimeError is a RuntimeError
        raise errors.UserError(_refused(topology, str(e))) from e
    if len(found) != topology.devices:
        raise errors.UserError(
            f"the compiler describes {topology.name} by {len(found)} devices, JAX has {topology.devices}; try"
            " --estimate"
        )
    return found


def _tpus(topology: chips.Topology) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise errors.UserError(
            f"the TPU compiler (libtpu) is not installed: {versions.install('tpu')}, or add --estimate"
        )
    size = "x".join(map(str, topology.shape))
    return topologies.get_topology_desc(
        topology_name=f"{topology.chip.name}:{size}", platform="tpu", **_options(topology)
    ).devices


def _gpus(topology: chips.Topology) -> list[jax.Device]:
    """GPUs from a description of the chip (XLA's GpuTargetConfigProto), with nodes joined by the network."""
    chip = topology.chip
    if chip.name not in HOPPER:
        raise errors.UserError(
            f"{topology.name}: plan compiles for TPUs, {' and '.join(HOPPER)}; add --estimate for {chip.name}"
        )
    if not any(map(importlib.util.find_spec, CUDA_PLUGINS)):
        raise errors.UserError(f"the CUDA compiler is not installed: {versions.install('cuda')}, or add --estimate")
    values = {
        "name": f"NVIDIA {chip.name.upper()}",
        "memory": int(chip.hbm_gib * 2**30),
        "bandwidth": int(chip.hbm_gbps * 1e9),
    }
    target = string.Template(CUDA_TARGET.read_text()).substitute(values)
    shape = f"1x{topology.hosts}x{topology.chips // topology.hosts}"
    return topologies.get_topology_desc(chip.name, "cuda", target_config=target, topology=shape).devices


def _options(topology: chips.Topology) -> dict[str, Any]:
    options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.chips == topology.slices:
        options["chips_per_host_bounds"] = (1,) * 3  # libtpu before 0.0.50 assumes four or eight chips per host
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # its two cores are one device, as JAX has them on the chip
    return options


def _refused(topology: chips.Topology, message: str) -> str:
    if "lockfile" in message:
        return (
            "another process on this machine holds libtpu, and ALLOW_MULTIPLE_LIBTPU_LOAD is off; unset it, wait for"
            " the process, or add --estimate"
        )
    first, near = (message.splitlines() or [""])[0], chips.nearest(topology).name
    other = f"the nearest usual slice is {near}" if near != topology.name else "try --estimate"
    return f"the compiler does not know {topology.name}: {first}; {other}"
