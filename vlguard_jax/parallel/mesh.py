"""The device mesh from configuration.

On TPUs neighbours along an axis are neighbours in the slice. Several slices are joined by the data axis: gradients are
summed over the slow network between them once a step, and nothing else crosses it.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import math
from typing import Any, Protocol, runtime_checkable

import jax
from jax import Array
from jax.experimental import mesh_utils
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families.blocks import execution as execution_lib

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")  # rows of a batch are sharded over both


def build(settings: config.MeshSettings, devices: list[jax.Device] | None = None) -> Mesh:
    """Mesh with axes `data`, `fsdp`, `tensor` over all devices; one size may be -1 (the rest), and data=1 means the
    number of slices.

    Raises:
      UserError: more than one -1, sizes that do not multiply to the device count, slices that the data axis cannot
        join, or a number of slices other than the config's.
    """
    devices = jax.devices() if devices is None else devices
    shape = sizes(settings, len(devices), _slices(devices))
    return Mesh(_arranged(devices, shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def sizes(settings: config.MeshSettings, devices: int, slices: int, where: str = "here") -> list[int]:
    """Devices along each of AXES, for `devices` devices in `slices` TPU slices. where: they are, for messages.

    Raises:
      UserError: see `build`.
    """
    if settings.slices not in (0, slices):
        wrong = f"config.mesh.slices={settings.slices}, but the devices {where} are of {slices}"
        raise errors.UserError(f"{wrong}; 0 takes what is there")
    found = [getattr(settings, axis) for axis in AXES]
    if found[0] == 1:
        found[0] = slices
    given = math.prod(size for size in found if size != -1)
    if found.count(-1) > 1 or any(size < 1 and size != -1 for size in found):
        raise errors.UserError(f"config.mesh={_named(found)}: sizes are positive, and at most one is -1")
    if -1 in found and devices % given == 0:
        found[found.index(-1)] = devices // given
    if math.prod(found) != devices:
        wrong = f"config.mesh={_named(found)} does not multiply to the {devices} devices {where}"
        raise errors.UserError(f"{wrong}; {f'{given} does not divide them' if -1 in found else 'set one size to -1'}")
    if found[0] % slices:
        raise errors.UserError(
            f"config.mesh.data={found[0]} must be a multiple of the {slices} slices {where}, which only the data axis"
            f" may join; set --config.mesh.data={slices}"
        )
    return found


def _named(sizes: list[int]) -> dict[str, int]:
    return dict(zip(AXES, sizes, strict=True))


def _slices(devices: list[Any]) -> int:
    """Number of TPU slices of the devices. GPU nodes, which JAX also numbers as slices, may be joined by any axis."""
    return len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1


def _arranged(devices: list[Any], sizes: list[int]) -> np.ndarray:
    slices = _slices(devices)
    if slices == 1:
        return _in_slice(devices, sizes)
    size, sizes = len(devices) // slices, [sizes[0] // slices, *sizes[1:]]
    of_slice = sorted(devices, key=lambda device: device.slice_index)
    return np.concatenate([_in_slice(of_slice[i : i + size], sizes) for i in range(0, len(devices), size)])


def _in_slice(devices: list[Any], sizes: list[int]) -> np.ndarray:
    one_per_chip = all(getattr(device, "core_on_chip", 0) == 0 for device in devices)
    if devices[0].platform == "tpu" and one_per_chip:  # where a chip is two devices, JAX's order keeps them together
        return mesh_utils.create_device_mesh(sizes, devices)
    return np.asarray(devices).reshape(sizes)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def row_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Rows sharded over the data and fsdp axes, after `leading` axes that are not."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * leading, ROW_AXES))


def put(x: np.ndarray, sharding: NamedSharding) -> Array:
    """Put a host array on the devices.

    With several processes all have the same array, and each sends its own devices their parts. (jax.device_put would
    first send the whole array from process 0 to a device of every other process, to compare.)
    """
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


@runtime_checkable
class InFiles(Protocol):
    """An array that is read when it is asked for (checkpoints/lazy.py)."""

    shape: tuple[int, ...]

    def part(self, wanted: tuple[slice, ...]) -> np.ndarray:
        """A part of it, with a slice for each axis."""

    def box(self, layer: int, wanted: tuple[slice, ...]) -> np.ndarray:
        """A part of one layer of a stack."""


def put_from_files(x: InFiles, sharding: NamedSharding, dtype: Any, layer: int | None = None) -> Array:
    """Put an array, or one layer of a stack, onto the devices in `dtype`. Each process reads only what its own devices
    hold: the smallest box around it."""
    shape = tuple(x.shape[layer is not None :])
    indices = sharding.addressable_devices_indices_map(shape).values()
    ends = [[one[axis].indices(size)[:2] for one in indices if one] for axis, size in enumerate(shape)]
    own = tuple(slice(min(start for start, _ in axis), max(stop for _, stop in axis)) for axis in ends)
    part = (x.part(own) if layer is None else x.box(layer, own)).astype(dtype, copy=False)

    def of_device(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None  # as of a device of this process
        found = [one.indices(size)[:2] for one, size in zip(index, shape, strict=True)]
        return part[tuple(slice(a - at.start, b - at.start) for (a, b), at in zip(found, own, strict=True))]

    return jax.make_array_from_callback(shape, sharding, of_device)


def constrain_rows(mesh: Mesh) -> Callable[[Array], Array]:
    """A function for use under jit that constrains the rows of its argument [B, ...] to the data and fsdp axes."""
    return functools.partial(jax.lax.with_sharding_constraint, shardings=row_sharding(mesh))


def by_rows(mesh: Mesh) -> execution_lib.ByRows:
    """`apply(function, shared, *arrays)`: function(shared, *arrays) on each device's own rows of arrays [B, ...] (or of
    trees), with `shared` whole over the data and fsdp axes. The gradient of `shared` is summed over devices once, after
    all loops of `function`; XLA alone would do so in every iteration. The tensor axis is left to XLA."""
    if row_shards(mesh) == 1:
        return execution_lib.directly  # the compiler refuses to map axes of one device beside one that it divides

    def apply(function: Callable[..., Any], shared: Any, *arrays: Any) -> Any:
        rows = PartitionSpec(ROW_AXES)
        specs = (PartitionSpec(), *(rows for _ in arrays))
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=rows, axis_names=set(ROW_AXES), check_vma=False
        )
        return mapped(shared, *arrays)

    return apply


def put_own_pictures(mesh: Mesh) -> execution_lib.PutPictures:
    """`execution.put_pictures` on a mesh, for batches in which every row shard has its own pictures (data/batches.py):
    each device reads only its own features."""

    def of_shard(features: Array, slot: Array, x: Array) -> Array:
        first = jax.lax.axis_index(ROW_AXES) * features.shape[0]
        return execution_lib.put_pictures(features, jnp.where(slot >= 0, slot - first, -1), x)

    rows = PartitionSpec(ROW_AXES)
    return jax.shard_map(of_shard, mesh=mesh, in_specs=(rows, rows, rows), out_specs=rows, check_vma=False)


def row_shards(mesh: Mesh) -> int:
    """Number of row shards of a batch."""
    return math.prod(mesh.shape[axis] for axis in ROW_AXES)


def own_row_shards(mesh: Mesh) -> tuple[int, ...]:
    """The row shards on devices of this process, in order; on a slice they need not be contiguous."""
    by_shard = mesh.devices.reshape(row_shards(mesh), -1)
    here = jax.process_index()
    return tuple(i for i, devices in enumerate(by_shard) if any(device.process_index == here for device in devices))
