"""The tensors of a model as they are written, and the new folder that they go into."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import shutil
from types import EllipsisType
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import job as job_lib
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import lazy
from vlguard_jax.checkpoints import manifest
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import safetensors_files
from vlguard_jax.families import parameters

Dtype = np.dtype | type | None


def dtype_name(model: checkpoint.Checkpoint, dtype: Dtype) -> str:
    """The name of `dtype`, or else of the embedding's."""
    return np.dtype(dtype if dtype is not None else trees.flatten(model.params)[parameters.EMBEDDING].dtype).name


def entries(
    model: checkpoint.Checkpoint, layout: str, parts: Collection[str], dtype: Dtype, *, stored_vocab: int | None = None
) -> list[safetensors_files.Entry]:
    """Every tensor of these parts, layer by layer; `dtype` None keeps the type of every array."""
    flat = trees.flatten(model.params)
    if layout not in ("peft", "peft-hf", "non_lora") and any(path.endswith(".lora_a") for path in flat):
        raise ValueError("adapters must be merged before the model is saved in this layout")
    entries: list[tuple[int, safetensors_files.Entry]] = []
    for row in layouts.rows(layout, model.config, parts, lora=model.lora, stored_vocab=stored_vocab):
        value = flat[row.path]
        if tuple(value.shape) != row.shape:
            raise ValueError(f"{row.path} has the shape {value.shape}, the config says {row.shape}")
        padding = (model.extras.get("padding") or {}).get(row.path)
        for i, names in enumerate(row.names):
            read = functools.partial(_stored_tensor, row, value, i, dtype, padding)
            entry = safetensors_files.Entry(names[0], row.stored_shape, np.dtype(dtype or value.dtype), read)
            entries.append((i if row.stacked else -1, entry))
    return [entry for _, entry in sorted(entries, key=lambda e: e[0])]


def _stored_tensor(row: layouts.Row, value: Any, layer: int, dtype: Dtype, padding: np.ndarray | None) -> np.ndarray:
    """One tensor as it is stored. Rows beyond the vocabulary: `padding` where it fits, else the mean of all rows."""
    name = row.names[layer][0]
    of_file = isinstance(value, lazy.Stored)  # every layout turns a tensor alike
    own = value.as_stored(layer) if of_file else value[layer if row.stacked else ...]
    if not isinstance(value, np.ndarray):  # just computed or read; loaded arrays were checked when loaded
        checkpoint.check_finite(value.where(layer) if of_file else row.path, np.ascontiguousarray(own), layer)
    if own.size == math.prod(row.stored_shape):
        own = cast(name, own, dtype)  # first, to transpose and hold less
        return own if of_file else row.from_tree(own)
    stored = own if of_file else row.from_tree(own)
    del own
    missing = row.stored_shape[0] - stored.shape[0]
    if padding is None or padding.shape != (missing, *row.stored_shape[1:]):
        mean = stored.mean(0, dtype=np.float32).astype(stored.dtype)
        padding = np.broadcast_to(mean, (missing, *mean.shape))
    return np.concatenate([cast(name, rows, dtype) for rows in (stored, padding.astype(stored.dtype))])


@dataclasses.dataclass(frozen=True)
class Cast:
    """An array of a model in another number format, layer by layer. path: its id. kind: the format; None: its own."""

    path: str
    value: Any
    kind: Dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> np.dtype:
        """As numpy's."""
        return np.dtype(self.kind or self.value.dtype)

    def __getitem__(self, key: int | EllipsisType) -> np.ndarray:
        return np.ascontiguousarray(cast(self.path, self.value[key], self.kind))

    def where(self, layer: int) -> str:
        """What holds a layer, for a message."""
        return self.value.where(layer) if isinstance(self.value, lazy.Stored) else self.path


def cast(name: str, value: np.ndarray, dtype: Dtype) -> np.ndarray:
    """`value` in another number format.

    Raises:
      UserError: it holds values beyond that format's range.
    """
    if dtype is None or value.dtype == dtype:
        return value
    with np.errstate(over="ignore"):
        result = value.astype(dtype)
    if result.dtype == np.float16 and not np.array_equal(np.isfinite(result), np.isfinite(value)):
        raise errors.UserError(f"{name}: holds values beyond the range of fp16; save as bf16 or fp32")
    return result


def size(entries: list[safetensors_files.Entry]) -> int:
    """Bytes."""
    return sum(entry.size for entry in entries)


def census(entries: list[safetensors_files.Entry]) -> manifest.Census:
    """What they are."""
    return manifest.census((math.prod(entry.shape), entry.dtype) for entry in entries)


@contextlib.contextmanager
def new_folder(
    model: checkpoint.Checkpoint,
    dst: str | os.PathLike[str],
    overwrite: bool,
    layout: str,
    counted: manifest.Census,
    job: job_lib.Job,
    further: Mapping[str, str] | None = None,
) -> Iterator[pathlib.Path]:
    """A new folder beside `dst` that gets its manifest and is renamed to `dst` when the block succeeds, and deleted
    when it fails. One that a command was stopped or killed in, and that `job` names, is taken up again.

    further: {name: text} of files that are written, too.

    Raises:
      UserError: see `place.check_free`; another process has written `dst` meanwhile; or there is no room for its bytes.
      OSError: the disk filled up or failed; what was at `dst` is still there.
    """
    place.check_free(dst, overwrite, [str(model.tokenizer_folder)])
    with folders.new_folder(pathlib.Path(dst), replace=overwrite, key=job.key) as folder:
        job.begin(folder)
        disk = shutil.disk_usage(folder)
        missing = counted.bytes - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if disk.total and disk.free < missing:  # a file system without a limit says 0
            sizes = f"{counted.bytes:,} bytes are to be written, {disk.free:,} are free"
            raise errors.UserError(f"{dst}: {sizes}; make room or choose another folder")
        yield folder
        for name, text in {**(further or {}), **job.further()}.items():
            (folder / name).write_text(text, encoding="utf-8")
        job.end()
        manifest.write(folder, layout, counted, job.hashes, job.weights_sha256)
        job.counted = counted
