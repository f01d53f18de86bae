"""Arrays of a parameter tree that stay in their files until they are asked for, one layer at a time."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import math
from types import EllipsisType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import tensors


@runtime_checkable
class Leaf(Protocol):
    """What stands for an array in `Checkpoint.params`: numpy's arrays do, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""

    @property
    def dtype(self) -> np.dtype:
        """As numpy's."""

    def __getitem__(self, key: int | EllipsisType) -> np.ndarray:
        """Layer `key` of a stack, or all of an unstacked array."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array whose layers are tensors of files; each is read, and turned into the tree's form, on `[i]`.

    dtype: of the tensors; of layers in several formats fp32, which holds every fp16 and bf16 number.
    """

    row: layouts.Row
    layers: tuple[tensors.Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""
        return self.row.shape

    @property
    def dtype(self) -> np.dtype:
        """As numpy's."""
        found = {tensor.dtype for tensor in self.layers}
        return found.pop() if len(found) == 1 else np.dtype(np.float32)

    def __getitem__(self, key: int | EllipsisType) -> np.ndarray:
        value = self.row.to_tree(self.layers[0 if key is ... else key].read())
        return value.astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(whole(self, self.row.stacked), dtype)

    def box(self, layer: int, wanted: tuple[slice, ...]) -> np.ndarray:
        """A part of `[layer]`, with a slice for each axis: of the file no more than its rows are read."""
        return self.row.box(self.layers[layer], wanted).astype(self.dtype, copy=False)

    def part(self, wanted: tuple[slice, ...]) -> np.ndarray:
        """A part of the array, with a slice for each axis."""
        if not self.row.stacked:
            return self.box(0, wanted)
        chosen = range(*wanted[0].indices(self.shape[0]))
        sizes = (len(range(*one.indices(n))) for one, n in zip(wanted[1:], self.shape[1:], strict=True))
        value = np.empty((len(chosen), *sizes), self.dtype)
        for place, layer in zip(value, chosen, strict=True):
            place[...] = self.box(layer, wanted[1:])
        return value

    def as_stored(self, layer: int) -> np.ndarray:
        """A layer as it is in its file, without rows of a padded vocabulary: what `Row.from_tree` makes of `[layer]`,
        and makes it slowly."""
        value = self.layers[layer].read()
        wanted = self.row.unpadded
        return value[tuple(slice(n) for n in wanted)].astype(self.dtype, copy=False)

    def where(self, layer: int) -> str:
        """The file and the tensor of a layer, for a message."""
        tensor = self.layers[layer]
        return f"{tensor.file}: tensor {tensor.name}"


def whole(leaf: Leaf, stacked: bool) -> np.ndarray:
    """All of an array, in memory."""
    if isinstance(leaf, np.ndarray):
        return leaf
    value = np.empty(leaf.shape, leaf.dtype)
    for i, layer in enumerate(layers(leaf, stacked)):
        value[i if stacked else ...] = layer
    return value


def layers(leaf: Leaf, stacked: bool) -> Iterator[np.ndarray]:
    """The layers of a stack, one after another, or the one array."""
    for i in range(leaf.shape[0]) if stacked else (...,):
        yield leaf[i]


def size(leaf: Leaf) -> int:
    """Bytes."""
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
