"""Gathers sharded arrays to the host of process 0: one tensor at a time on the host, one block of it on the devices, so
that neither needs memory for more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
import functools
import math
from types import EllipsisType
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from vlguard_jax.parallel import processes

BLOCK = 2**26  # bytes of a tensor that are on every device at a time
_WHOLE, _END = -1, -1  # in place of a layer and of an array


@dataclasses.dataclass(frozen=True)
class OnMesh:
    """An array on the mesh. `[i]` brings layer i of a stack to this host, `[...]` an unstacked array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int], np.ndarray]

    def __getitem__(self, key: int | EllipsisType) -> np.ndarray:
        return self.read(_WHOLE if key is ... else key)


def for_first(arrays: Any, use: Callable[[Any], None]) -> None:
    """In process 0, call `use` with the tree `arrays` (of jax.Array with NamedSharding) as a tree of `OnMesh`; the
    others take part in every read until it returns. Every process must call this.

    Raises:
      Exception: raised by `use` in process 0; the others raise one with the same message, so that the command ends
        alike.
    """
    leaves, tree = jax.tree.flatten(arrays)

    def read(index: int, layer: int) -> np.ndarray:
        _told(index, layer)
        return _assembled(leaves[index], layer)

    failure = None
    if jax.process_index() == 0:
        served = [OnMesh(x.shape, np.dtype(x.dtype), functools.partial(read, i)) for i, x in enumerate(leaves)]
        try:
            use(jax.tree.unflatten(tree, served))
        except Exception as e:
            failure = e
        _told(_END, _WHOLE)
    else:
        while (asked := _told(_END, _WHOLE))[0] != _END:
            for _, block in _blocks(leaves[asked[0]], asked[1]):
                block.block_until_ready()
    processes.tell_failure(failure)


def _told(index: int, layer: int) -> tuple[int, int]:
    """Tell all processes what process 0 is about to read."""
    told = multihost_utils.broadcast_one_to_all(np.array([index, layer], np.int32))
    return int(told[0]), int(told[1])


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a tensor whose first axis is split into `parts` parts: `count` rows of each, from row `start` of the
    part."""

    parts: int
    start: int
    count: int


def rows_at_a_time(shape: tuple[int, ...], itemsize: int, parts: int) -> list[Rows]:
    """All rows of a tensor in blocks of at most BLOCK bytes, or one row of each part. The last block may overlap the
    one before it: all blocks have one size, and so need one program."""
    own = shape[0] // parts
    count = min(own, max(1, BLOCK // (parts * math.prod(shape[1:]) * itemsize)))
    return [Rows(parts, min(start, own - count), count) for start in range(0, own, count)]


@functools.partial(jax.jit, static_argnames=("mesh", "spec", "rows"))
def take(
    array: jax.Array, layer: jax.Array | None, start: jax.Array, *, mesh: Mesh, spec: PartitionSpec, rows: int
) -> jax.Array:
    """Rows `start` i32[] to `start + rows` of each part of layer `layer` i32[] of a stack sharded as `spec`, or of an
    unstacked array (None), on every device.

    They are sliced locally. An array sharded along several axes is gathered along the last axis first: then the largest
    buffers need no transpose.
    """
    axes = [*spec, *(None,) * (array.ndim - len(spec))][layer is not None :]

    def own(part: jax.Array, layer: jax.Array | None, start: jax.Array) -> jax.Array:
        if layer is not None:
            part = jax.lax.dynamic_index_in_dim(part, layer, keepdims=False)
        part = jax.lax.dynamic_slice_in_dim(part, start, rows)
        for dim, axis in reversed(list(enumerate(axes))):
            part = part if axis is None else jax.lax.all_gather(part, axis, axis=dim, tiled=True)
        return part

    everywhere = PartitionSpec()
    mapped = jax.shard_map(
        own, mesh=mesh, in_specs=(spec, everywhere, everywhere), out_specs=everywhere, check_vma=False
    )
    return mapped(array, layer, start)


def _blocks(array: jax.Array, layer: int) -> Iterator[tuple[Rows, jax.Array]]:
    """The blocks of a tensor, each with its rows."""
    place = array.sharding
    assert isinstance(place, NamedSharding)
    shape = array.shape[layer != _WHOLE :]
    parts = shape[0] // place.shard_shape(array.shape)[layer != _WHOLE]
    for rows in rows_at_a_time(shape, array.dtype.itemsize, parts):
        index = None if layer == _WHOLE else np.int32(layer)
        yield rows, take(array, index, np.int32(rows.start), mesh=place.mesh, spec=place.spec, rows=rows.count)


def _assembled(array: jax.Array, layer: int) -> np.ndarray:
    result = np.empty(array.shape[layer != _WHOLE :], array.dtype)
    rest = result.shape[1:]
    for rows, block in _blocks(array, layer):
        place = result.reshape(rows.parts, -1, *rest)[:, rows.start : rows.start + rows.count]
        place[...] = np.asarray(block.addressable_data(0)).reshape(place.shape)
        del block  # before the next one is gathered
    return result
