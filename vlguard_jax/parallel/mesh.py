"""The device mesh from configuration."""

from __future__ import annotations

from collections.abc import Callable
import functools
import math

import jax
from jax import Array
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from vlguard_jax import config
from vlguard_jax import errors

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")  # rows of a batch are spread over both


def build(settings: config.MeshSettings, devices: list[jax.Device] | None = None) -> Mesh:
    """Mesh with axes `data`, `fsdp`, `tensor` over all devices; one size may be -1 (what is left).

    Raises:
      UserError: more than one -1, or sizes that do not multiply to the device count.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(settings, axis) for axis in AXES]
    given = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise errors.UserError(f"config.mesh={dict(zip(AXES, sizes, strict=True))}: sizes are positive, and at most one is -1")
    if -1 in sizes and len(devices) % given == 0:
        sizes[sizes.index(-1)] = len(devices) // given
    if math.prod(sizes) != len(devices):
        shape = dict(zip(AXES, sizes, strict=True))
        raise errors.UserError(f"config.mesh={shape} does not multiply to the {len(devices)} devices here; set one size to -1")
    return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def row_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Rows spread over the data and fsdp axes, after `leading` axes that are not split."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, ROW_AXES))


def constrain_rows(mesh: Mesh) -> Callable[[Array], Array]:
    """A function for the inside of a program: its argument [B, ...] lies with its rows over the data and fsdp axes."""
    return functools.partial(jax.lax.with_sharding_constraint, shardings=row_sharding(mesh))


def row_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in ROW_AXES)
