"""A model as an Orbax folder (`convert --to orbax`): arrays/, checkpoint.json and the tokenizer's files."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent import futures
import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import trees
from vlguard_jax.checkpoints import arrays
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import header
from vlguard_jax.checkpoints import job as job_lib
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import lazy
from vlguard_jax.checkpoints import manifest
from vlguard_jax.checkpoints import stored
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.checkpoints import writing
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import parameters
from vlguard_jax.families import table

_ARRAYS = "arrays"
_CREATED = "arrays"  # in a job
_HASHING = 2  # arrays at a time


def is_export(folder: pathlib.Path) -> bool:
    """True if the folder was written by `save_export`."""
    return (folder / export_record.RECORD).is_file()


def save_export(
    model: checkpoint.Checkpoint, folder: pathlib.Path, dtype: writing.Dtype = None, job: job_lib.Job | None = None
) -> None:
    """Write the model into an existing folder, one layer at a time; what `job` has there already is kept.

    Raises:
      UserError: a value is not finite, or does not fit `dtype`.
    """
    job = job or job_lib.Job()
    known = table.parameters_of(model.config, model.lora)
    flat: dict[str, lazy.Leaf] = {f"params.{path}": value for path, value in trees.flatten(model.params).items()}
    padding = model.extras.get("padding") or {}
    where = folder / _ARRAYS
    if _CREATED not in job.done:
        shutil.rmtree(where, ignore_errors=True)
        kinds = {name: np.dtype(dtype or value.dtype) for name, value in flat.items()}
        arrays.create(
            where, kinds | {f"padding.{path}": np.dtype(dtype or rows.dtype) for path, rows in padding.items()}
        )
        job.add(_CREATED, "")
    for path, rows in padding.items():
        arrays.write(where, f"padding.{path}", writing.cast(path, rows, dtype), stacked=False)
    digests = {}
    for name, value in flat.items():
        path = name.removeprefix("params.")
        if not (name in job.done and _digest(where, name, path, known[path].stacked) == job.done[name]):
            job.add(name, _write(where, name, writing.Cast(path, value, dtype), known[path].stacked, job))
        digests[path] = job.done[name]
    job.weights_sha256 = checkpoint.combine(digests)
    base = model.base
    if base is not None and not base.sha256:  # of the weights as they are, which nobody has read before
        same = dtype is None or all(value.dtype == dtype for value in flat.values())
        base = (
            dataclasses.replace(base, sha256=checkpoint.base_fingerprint(digests, model.config, model.lora))
            if same
            else None
        )
    tokenizer_files.copy(model.tokenizer_folder, folder)
    record = {
        **header.current(),
        "kind": "model",
        "family": table.of(model.config).name,
        "config": dataclasses.asdict(model.config),
        "lora": dataclasses.asdict(model.lora) if model.lora else None,
        "weights_sha256": job.weights_sha256,
        "base": dataclasses.asdict(base) if base else None,
        "arrays": digests,
        "extras": {key: value for key, value in model.extras.items() if key not in export_record.UNSTORED},
    }
    (folder / export_record.RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _write(where: pathlib.Path, name: str, value: writing.Cast, stacked: bool, job: job_lib.Job) -> str:
    """Write one array; its hash, which a thread makes while the next layer is read."""
    state = checkpoint.hashing(value.path, value)
    with futures.ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:
        pending: list[futures.Future[None]] = []

        def seen(i: int, layer: np.ndarray) -> None:
            if pending:
                pending.pop().result()
            pending.append(pool.submit(checkpoint.check_finite, value.where(i), layer, i, state.update))
            job.tell(layer.nbytes)

        arrays.write(where, name, value, stacked, seen)
        for one in pending:
            one.result()
    return state.hexdigest()


def _digest(where: pathlib.Path, name: str, path: str, stacked: bool) -> str:
    """The hash of an array that an interrupted conversion has written; "" if it cannot be read."""
    try:
        found = stored.read(where)[name]
        return checkpoint.digest_lazily(path, arrays.of(where, name, found), stacked)
    except Exception:  # half-written
        return ""


def load_export(folder: pathlib.Path, dtype: np.dtype | type | None = None) -> checkpoint.Checkpoint:
    """Load an exported model into memory; its content is checked as in `opened`.

    Raises as `opened`.
    """
    found = opened(folder)
    known = table.parameters_of(found.config, found.lora)
    flat = {path: lazy.whole(value, known[path].stacked) for path, value in trees.flatten(found.params).items()}
    if dtype is not None:
        flat = {path: value.astype(dtype, copy=False) for path, value in flat.items()}
    return dataclasses.replace(found, params=trees.unflatten(flat))


def opened(folder: pathlib.Path) -> checkpoint.Checkpoint:
    """An exported model whose arrays stay in their files (lazy.py). Those of a folder without manifest.json, which has
    been compared with it, are read once and compared with their recorded hashes.

    Raises:
      UserError: damaged arrays or record, or another format version.
    """
    where = folder / _ARRAYS
    record = export_record.read(folder)
    found = listed(folder, record)
    made = {name: arrays.of(where, name, one) for name, one in found.items()}
    flat = {name.removeprefix("params."): one for name, one in made.items() if name.startswith("params.")}
    if not manifest.has(folder):
        _check_content(where, flat, record)
    # The base by its name, unless adapters were merged into it or its weights changed since.
    base = record.base
    if base and base.sha256 != checkpoint.base_fingerprint(record.arrays, record.config, record.lora):
        base = None
    extras = extras_lib.Extras(**record.extras)
    padding = {name.removeprefix("padding."): one for name, one in made.items() if name.startswith("padding.")}
    if padding:
        extras["padding"] = {path: one[...] for path, one in padding.items()}
    params = trees.unflatten(flat)
    return checkpoint.Checkpoint(
        record.config, params, record.lora, folder, record.weights_sha256, "orbax", base, extras
    )


def _check_content(where: pathlib.Path, flat: Mapping[str, arrays.Array], record: export_record.Record) -> None:
    known = table.parameters_of(record.config, record.lora)
    with futures.ThreadPoolExecutor(_HASHING, thread_name_prefix="hash") as pool:
        given = [(path, value, known[path].stacked) for path, value in flat.items()]
        for path, digest in zip(flat, pool.map(lambda one: checkpoint.digest_lazily(*one), given), strict=True):
            if digest != record.arrays[path]:
                raise errors.UserError(
                    f"{where}: array {path} is not what {export_record.RECORD} says; export the model again"
                )


def listed(folder: pathlib.Path, record: export_record.Record) -> dict[str, Any]:
    """By tree path: shape, dtype and storage of every array of an exported model.

    Raises:
      UserError: damaged, or not what its record says.
    """
    where = folder / _ARRAYS
    stored.check_name(folder)
    _check_files(where)
    with arrays.naming_damage(where):
        found = stored.read(where)
        _check_stored(where, found, layouts.tree_shapes(record.config, record.lora))
        stored.check_sizes(where, found)
    return found


def _check_files(where: pathlib.Path) -> None:
    """Raise UserError for a pipe or a device, behind a link or not: opening one may never end."""
    for folder, _, names in os.walk(where):
        for name in names:
            if not os.path.isfile(os.path.join(folder, name)):
                raise errors.UserError(
                    f"{os.path.join(folder, name)}: not a file, and Orbax writes only files; export the model again"
                )


def _check_stored(where: pathlib.Path, arrays_: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check Orbax's own record of the arrays before allocating memory for them."""
    wanted = {f"params.{path}": shape for path, shape in shapes.items()}
    for path in sorted(wanted.keys() | arrays_.keys()):
        found = arrays_.get(path)
        shape = tuple(getattr(found, "shape", None) or ())
        rest = path.removeprefix("padding.")
        if path not in wanted and rest != path and rest in parameters.VOCABULARY and len(shape) == 2:
            width = shapes[parameters.EMBEDDING][1]
            wanted[path] = (min(shape[0], limits.MODEL_SIZE), width)  # with the stored rows beyond the vocabulary
        if (
            path not in wanted
            or found is None
            or shape != wanted[path]
            or np.dtype(found.dtype) not in tensors.FLOATS.values()
        ):
            sizes = (
                f"{list(wanted[path])} expected, {list(shape)} found"
                if path in wanted and found is not None
                else "unknown or missing"
            )
            raise errors.UserError(f"{where}: array {path.removeprefix('params.')}: {sizes}; export the model again")
