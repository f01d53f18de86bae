"""A model as an Orbax folder (`convert --to orbax`): arrays/, checkpoint.json and the tokenizer's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import header
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import stored
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import parameters
from vlguard_jax.families import table

_ARRAYS = "arrays"


def is_export(folder: pathlib.Path) -> bool:
    """True if the folder was written by `save_export`."""
    return (folder / export_record.RECORD).is_file()


def save_export(model: checkpoint.Checkpoint, folder: pathlib.Path) -> None:
    """Write the model into an existing empty folder."""
    import orbax.checkpoint as ocp

    extras = {k: v for k, v in model.extras.items() if k not in ("padding", "note")}
    digests = {
        path: checkpoint.digest(path, np.ascontiguousarray(value))
        for path, value in trees.flatten(model.params).items()
    }
    record = {
        **header.current(),
        "kind": "model",
        "family": table.of(model.config).name,
        "config": dataclasses.asdict(model.config),
        "lora": dataclasses.asdict(model.lora) if model.lora else None,
        "weights_sha256": checkpoint.combine(digests),
        "base": dataclasses.asdict(model.base) if model.base else None,
        "arrays": digests,
        "extras": extras,
    }
    tree = {"params": model.params, "padding": trees.unflatten(model.extras.get("padding", {}))}
    with ocp.StandardCheckpointer() as writer:
        writer.save((folder / _ARRAYS).absolute(), {k: v for k, v in tree.items() if v})
        writer.wait_until_finished()
    tokenizer_files.copy(model.tokenizer_folder, folder)
    (folder / export_record.RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_export(folder: pathlib.Path, dtype: np.dtype | type | None = None) -> checkpoint.Checkpoint:
    """Load an exported model; every array is checked against its recorded hash.

    Raises:
      UserError: damaged arrays or record, or another format version.
    """
    import orbax.checkpoint as ocp

    where = folder / _ARRAYS
    record = export_record.read(folder)
    arrays = listed(folder, record)
    with _naming_damage(where):
        # As numpy arrays, independent of the devices that wrote them.
        as_numpy = {path: ocp.RestoreArgs(restore_type=np.ndarray) for path in arrays}
        tree = ocp.PyTreeCheckpointer().restore(where.absolute(), restore_args=trees.unflatten(as_numpy))
        flat = {path: np.asarray(value) for path, value in trees.flatten(tree["params"]).items()}
    for path, value in flat.items():
        if checkpoint.digest(path, value) != record.arrays[path]:
            raise errors.UserError(
                f"{where}: array {path} is not what {export_record.RECORD} says; export the model again"
            )
    if dtype is not None:
        flat = {path: value.astype(dtype, copy=False) for path, value in flat.items()}
    # The base by its name, unless adapters were merged into it or its weights changed since.
    base = record.base
    if base and base.sha256 != checkpoint.base_fingerprint(record.arrays, record.config, record.lora):
        base = None
    extras = extras_lib.Extras(**record.extras)
    if "padding" in tree:
        extras["padding"] = {path: np.asarray(value) for path, value in trees.flatten(tree["padding"]).items()}
    params = trees.unflatten(flat)
    return checkpoint.Checkpoint(
        record.config, params, record.lora, folder, record.weights_sha256, "orbax", base, extras
    )


def listed(folder: pathlib.Path, record: export_record.Record) -> dict[str, Any]:
    """By tree path: shape, dtype and storage of every array of an exported model.

    Raises:
      UserError: damaged, or not what its record says.
    """
    where = folder / _ARRAYS
    _check_files(where)
    with _naming_damage(where):
        arrays = stored.read(where)
        _check_stored(where, arrays, layouts.tree_shapes(record.config, record.lora))
        stored.check_sizes(where, arrays)
    return arrays


@contextlib.contextmanager
def _naming_damage(where: pathlib.Path) -> Iterator[None]:
    """A damaged folder can raise anything."""
    try:
        yield
    except errors.UserError:
        raise
    except Exception as e:
        raise errors.UserError(f"{where}: damaged, export the model again: {e or type(e).__name__}") from e


def _check_files(where: pathlib.Path) -> None:
    """Raise UserError for a pipe or a device, behind a link or not: opening one may never end."""
    for folder, _, names in os.walk(where):
        for name in names:
            if not os.path.isfile(os.path.join(folder, name)):
                raise errors.UserError(
                    f"{os.path.join(folder, name)}: not a file, and Orbax writes only files; export the model again"
                )


def _check_stored(where: pathlib.Path, arrays: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check Orbax's own record of the arrays before allocating memory for them."""
    wanted = {f"params.{path}": shape for path, shape in shapes.items()}
    for path in sorted(wanted.keys() | arrays.keys()):
        found = arrays.get(path)
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
