"""Shardings of parameters: the mesh axes in the families' tables (families/parameters.py), on a mesh.

A dimension that is not divisible by its axis is an error. Optimizer state is sharded like its parameters.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.parallel import mesh as mesh_lib


def shardings(model: family.Config, lora: configs.LoraConfig | None, mesh: Mesh | AbstractMesh) -> dict[str, Any]:
    """A tree of NamedSharding, one per parameter of a model; `mesh` may be abstract, without devices.

    Raises:
      UserError: a dimension is not divisible by its mesh axis.
    """
    result = {}
    for one in table.parameters_of(model, lora).values():
        for size, axis in zip(one.shape, one.axes, strict=False):
            names: tuple[str, ...] = () if axis is None else (axis,) if isinstance(axis, str) else axis
            if size % math.prod(mesh.shape[name] for name in names):
                said = " and ".join(f"{name}={mesh.shape[name]}" for name in names)
                raise errors.UserError(
                    f"parameter {one.id} {one.shape}: {size} is not divisible by mesh axis {said}; "
                    f"choose another config.mesh.{names[-1]}"
                )
        result[one.id] = NamedSharding(mesh, PartitionSpec(*one.axes))
    return trees.unflatten(result)


def check_heads(text: configs.TextConfig, mesh: Mesh | AbstractMesh) -> None:
    """Check that the heads fit the tensor axis.

    Raises:
      UserError: the heads cannot be divided evenly over the tensor axis.
    """
    tensor = mesh.shape["tensor"]
    if text.num_heads % tensor or text.num_kv_heads % tensor:
        raise errors.UserError(
            f"config.mesh.tensor={tensor} must divide {text.num_heads} heads and {text.num_kv_heads} kv heads"
        )


def abstract(params: dict[str, Any], places: dict[str, Any], dtype: jnp.dtype) -> dict[str, Any]:
    """The tree as ShapeDtypeStructs of `dtype`, each with its sharding (`shardings`)."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, dtype, sharding=s), params, places)


def place(params: dict[str, Any], places: dict[str, Any], dtype: np.dtype) -> dict[str, Any]:
    """The parameters in `dtype` on the mesh, sharded as `places` (from `shardings`).

    Host arrays are cast on the host and sent to their devices in parts, never whole to one. Of those that are still in
    their files (checkpoints/lazy.py), each host reads what its own devices hold.
    """

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(x, np.ndarray):
            return mesh_lib.put(x.astype(dtype, copy=False), sharding)
        if not isinstance(x, jax.Array) and hasattr(x, "part"):
            return mesh_lib.put_from_files(x, sharding, dtype)
        return jax.device_put(jnp.asarray(x, dtype), sharding)

    return jax.tree.map(put, params, places)
