"""Checks Orbax's own record of the arrays in a folder before memory is allocated for them.

Arrays are read in chunks, each unpacked as a whole: chunks declared larger than their array, or arrays far larger than
their files, would exhaust the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
import pathlib
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import trees


def read(where: pathlib.Path) -> dict[str, Any]:
    """By tree path: shape, dtype and storage of every array. A damaged folder can raise anything."""
    import orbax.checkpoint as ocp

    # the handler, as a checkpointer warns of a file that no item of a step has
    return trees.flatten(ocp.PyTreeCheckpointHandler().metadata(where.absolute()).tree)


def check_name(where: pathlib.Path) -> None:
    """Raise UserError for a place whose name is not UTF-8: TensorStore opens none."""
    try:
        str(where.absolute()).encode()
    except UnicodeEncodeError as e:
        raise errors.UserError(
            f"{where}: its name is not UTF-8, and Orbax reads and writes no such folder; rename it, or name another"
        ) from e


def check_sizes(where: pathlib.Path, stored: Mapping[str, Any]) -> None:
    """Check that `stored`, from `read`, asks for no more memory than the files in `where` can fill.

    Raises:
      UserError: a chunk is larger than its array, or all arrays are far larger than the files.
    """
    whole, packed = 0, sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
    for path, array in stored.items():
        shape, chunk = tuple(array.shape), getattr(array.storage, "chunk_shape", None) or ()
        if any(part > max(size, 1) for part, size in zip(chunk, shape, strict=False)):
            sizes = f"chunks of {list(chunk)} are larger than its {list(shape)}"
            raise errors.UserError(f"{where}: array {path}: {sizes}; get the folder again")
        whole += math.prod(shape) * np.dtype(array.dtype).itemsize
    if whole > max(limits.EXPORT_RATIO * packed, limits.EXPORT_RATIO_FROM):
        raise errors.UserError(
            f"{where}: its arrays would be {whole:,} bytes, packed in {packed:,}; weights are at most"
            f" {limits.EXPORT_RATIO} times as large as their files: get the folder again"
        )
