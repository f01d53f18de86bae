"""Which mesh axis each dimension of each parameter lies on.

The table is total: a parameter that no rule names, two rules that name one, or a dimension that its axis does not
divide is an error (tests/parallel also reject rules that name nothing). Optimizer state follows the parameters.
"""

from __future__ import annotations

import math
import re
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
from vlguard_jax.models import config as model_config
from vlguard_jax.parallel import mesh as mesh_lib

# Dotted path (regular expression, whole match) -> axes. Kernels are [in, out] after the layer axis: what comes from the
# residual stream is split by `fsdp` on its input and `tensor` on its output, what goes back the other way round. An
# adapter's long side is split by all that its kernel's is and `fsdp`, as its rank is too short for an axis. The frozen
# tower is small and stays whole on every device, as do norms and biases.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"vision\..*", PartitionSpec()),
    (r"projector\.fc1\.kernel", PartitionSpec("fsdp", "tensor")),
    (r"projector\.fc2\.kernel", PartitionSpec("tensor", "fsdp")),
    (r"projector\.fc[12]\.bias", PartitionSpec()),
    (r"text\.embed\.embedding", PartitionSpec("tensor", "fsdp")),
    (r"text\.head\.kernel", PartitionSpec("fsdp", "tensor")),
    (r"text\.layers\.(attention\.[qkv]|mlp\.(gate|up))\.kernel", PartitionSpec(None, "fsdp", "tensor")),
    (r"text\.layers\.(attention\.o|mlp\.down)\.kernel", PartitionSpec(None, "tensor", "fsdp")),
    (r"text\.layers\.(attention\.[qkv]|mlp\.(gate|up))\.lora_a", PartitionSpec(None, "fsdp", None)),
    (r"text\.layers\.(attention\.[qkv]|mlp\.(gate|up))\.lora_b", PartitionSpec(None, None, ("tensor", "fsdp"))),
    (r"text\.layers\.(attention\.o|mlp\.down)\.lora_a", PartitionSpec(None, ("tensor", "fsdp"), None)),
    (r"text\.layers\.(attention\.o|mlp\.down)\.lora_b", PartitionSpec(None, None, "fsdp")),
    (r"text\.(layers\.(attention|mlp)_norm|norm)\.scale", PartitionSpec()),
)


def spec(path: str) -> PartitionSpec:
    """The axes of the parameter at a dotted path.

    Raises:
      KeyError: no rule, or more than one, names the path.
    """
    found = [axes for pattern, axes in RULES if re.fullmatch(pattern, path)]
    if len(found) != 1:
        raise KeyError(f"parameter {path} is named by {len(found)} sharding rules; exactly one must")
    return found[0]


def shardings(params: dict[str, Any], mesh: Mesh | AbstractMesh) -> dict[str, Any]:
    """A tree of NamedSharding for a parameter tree (of arrays or shapes); `mesh` may have no devices yet.

    Raises:
      UserError: a dimension is not divisible by its mesh axis.
    """
    flat = trees.flatten(params)
    result = {}
    for path, leaf in flat.items():
        axes = spec(path)
        for size, axis in zip(leaf.shape, axes, strict=False):
            names: tuple[str, ...] = () if axis is None else (axis,) if isinstance(axis, str) else axis
            if size % math.prod(mesh.shape[name] for name in names):
                said = " and ".join(f"{name}={mesh.shape[name]}" for name in names)
                raise errors.UserError(
                    f"parameter {path} {tuple(leaf.shape)}: {size} is not divisible by mesh axis {said}; "
                    f"choose another config.mesh.{names[-1]}"
                )
        result[path] = NamedSharding(mesh, axes)
    return trees.unflatten(result)


def check_heads(text: model_config.TextConfig, mesh: Mesh | AbstractMesh) -> None:
    """Raises:
    UserError: the heads cannot be dealt evenly to the tensor axis.
    """
    tensor = mesh.shape["tensor"]
    if text.num_heads % tensor or text.num_kv_heads % tensor:
        raise errors.UserError(
            f"config.mesh.tensor={tensor} must divide {text.num_heads} heads and {text.num_kv_heads} kv heads"
        )


def abstract(params: dict[str, Any], mesh: Mesh, dtype: jnp.dtype) -> dict[str, Any]:
    """The tree as ShapeDtypeStructs of `dtype`, each with its place on the mesh.

    Raises:
      UserError: see `shardings`.
    """
    placed = shardings(params, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, dtype, sharding=s), params, placed)


def place(params: dict[str, Any], mesh: Mesh, dtype: np.dtype) -> dict[str, Any]:
    """The parameters on the mesh in `dtype`.

    Host arrays are cast on the host and go to their devices in parts, never whole to one.

    Raises:
      UserError: see `shardings`.
    """

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(x, np.ndarray):
            return mesh_lib.put(x.astype(dtype, copy=False), sharding)
        return jax.device_put(jnp.asarray(x, dtype), sharding)

    return jax.tree.map(put, params, shardings(params, mesh))
