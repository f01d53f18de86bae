"""Arrays of an Orbax folder, read and written one layer at a time.

Orbax takes and gives whole arrays. So it writes a folder of the same tree whose arrays have one number each, and then
TensorStore, which Orbax stores arrays with, puts the real ones in their place: any reader of Orbax's folders reads
them. A layer is at least one chunk, so that one can be read without the others, and larger ones are divided along their
first axis, so that a part can be. Chunks are not compressed: trained weights shrink by a quarter at most, at a tenth of
the speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import functools
import math
import pathlib
from types import EllipsisType
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import lazy

CHUNK = 1 << 25  # bytes of a chunk; a stack that is smaller is one
_CONTEXT = {"file_io_sync": False}  # what is written is compared with its hash when it is read


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of an Orbax folder, whose layers are read on `[i]`. chunk: sizes of a chunk."""

    where: pathlib.Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]

    @functools.cached_property
    def _store(self) -> Any:
        import tensorstore

        with naming_damage(self.where):
            return tensorstore.open(_spec(self.where, self.name), read=True, open=True).result()

    @functools.cached_property
    def _whole(self) -> np.ndarray:
        return self._read(...)

    def _read(self, key: Any) -> np.ndarray:
        with naming_damage(self.where):
            return np.asarray(self._store[key].read().result())

    def __getitem__(self, key: int | EllipsisType) -> np.ndarray:
        if key is ...:
            return self._read(...)
        if self.chunk[:1] != (1,) and lazy.size(self) > CHUNK:  # of an older version: a layer costs as much as all
            return self._whole[key]
        return self._read(key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._read(...), dtype)

    def part(self, wanted: tuple[slice, ...]) -> np.ndarray:
        """A part of the array, with a slice for each axis; of the files only its chunks are read."""
        return self._read(wanted)

    def box(self, layer: int, wanted: tuple[slice, ...]) -> np.ndarray:
        """A part of `[layer]`."""
        return self._read((layer, *wanted))


def of(where: pathlib.Path, name: str, found: Any) -> Array:
    """An array of a folder. found: what Orbax says of it (stored.py)."""
    chunks = getattr(found.storage, "chunk_shape", None) or ()
    return Array(where, name, tuple(found.shape), np.dtype(found.dtype), tuple(chunks))


@contextlib.contextmanager
def naming_damage(where: pathlib.Path) -> Iterator[None]:
    """A damaged folder can raise anything: a UserError that names it."""
    try:
        yield
    except errors.UserError:
        raise
    except Exception as e:
        raise errors.UserError(f"{where}: damaged, export the model again: {e or type(e).__name__}") from e


def _spec(where: pathlib.Path, name: str) -> dict[str, Any]:
    base = {"driver": "file", "path": f"{where.absolute()}/"}
    return {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"},
        "context": _CONTEXT,
        "recheck_cached_data": "open",
    }


def create(where: pathlib.Path, dtypes: Mapping[str, np.dtype]) -> None:
    """A new Orbax folder for arrays of these names (dotted paths) and dtypes, which `write` fills."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as writer:
        writer.save(where.absolute(), trees.unflatten({name: np.zeros(1, dtype) for name, dtype in dtypes.items()}))
        writer.wait_until_finished()


def write(
    where: pathlib.Path,
    name: str,
    value: lazy.Leaf,
    stacked: bool,
    seen: Callable[[int, np.ndarray], object] = lambda i, layer: None,
) -> None:
    """Write an array into a folder of `create`. seen: called with each layer in turn; may raise.

    Raises:
      ValueError: of TensorStore: the disk is full or failed (machine.py knows its words).
    """
    import tensorstore

    shape, dtype = value.shape, np.dtype(value.dtype)
    metadata = {
        **{"shape": list(shape), "chunks": list(chunk(shape, dtype.itemsize, stacked)), "order": "C"},
        **{"dtype": "bfloat16" if dtype.name == "bfloat16" else dtype.str},
        **{"compressor": None, "filters": None, "fill_value": None, "dimension_separator": "."},
    }
    spec = {**_spec(where, name), "metadata": metadata}
    store = tensorstore.open(spec, create=True, delete_existing=True, write=True).result()
    whole = stacked and lazy.size(value) <= CHUNK
    gathered: list[np.ndarray] = []
    pending = None
    for i, layer in enumerate(lazy.layers(value, stacked)):
        seen(i, layer)
        if whole:
            gathered.append(layer)
            continue
        if pending is not None:
            pending.result()
        pending = (store[i] if stacked else store).write(layer)  # while the next one is read
    if whole:
        pending = store.write(np.stack(gathered))
    if pending is not None:
        pending.result()


def chunk(shape: tuple[int, ...], itemsize: int, stacked: bool) -> tuple[int, ...]:
    """Sizes of the chunks of an array: all of a small one, else a layer or a part of it."""
    if math.prod(shape) * itemsize <= CHUNK:
        return tuple(max(1, n) for n in shape)
    layer = shape[stacked:]
    size = math.prod(layer) * itemsize
    parts = next((n for n in range(1, layer[0] + 1) if layer[0] % n == 0 and size <= n * CHUNK), layer[0])
    return (*(1,) * stacked, layer[0] // parts, *layer[1:])
