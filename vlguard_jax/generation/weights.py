"""The weights as the programs of generation take them: one array a layer of the decoder, in place of a stack.

A decode step reads each weight once; an index into a stack would copy it first. This form is made when the engine loads
a model, matrix by matrix, so that memory holds the weights once; it is never stored.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from vlguard_jax.families import functional
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules

_LAYER = re.compile(r"(text\.layers)\.(\d+)\.(.+)")


def abstract(model: functional.Model, mesh: Mesh) -> functional.Params:
    """Shapes and shardings of the split weights in the model's compute dtype; nothing is allocated.

    Raises:
      UserError: a dimension is not divisible by its mesh axis.
    """
    places = rules.shardings(model.config, model.lora, mesh)
    stacked = rules.abstract(model.shapes(), places, model.dtype)

    def parts(x: jax.ShapeDtypeStruct) -> list[jax.ShapeDtypeStruct]:
        return [jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=_of_one(x.sharding))] * x.shape[0]

    return functional.with_layers(stacked, jax.tree.map(parts, stacked["text"]["layers"]))


def load(params: functional.Params, model: functional.Model, mesh: Mesh) -> functional.Params:
    """Stacked weights, numpy or jax arrays or those of checkpoints/lazy.py, split, in the model's compute dtype on the
    mesh. Of the last, each host reads what its own devices hold.

    Raises:
      UserError: a dimension is not divisible by its mesh axis.
    """
    places = rules.shardings(model.config, model.lora, mesh)
    whole, at = (functional.with_layers(tree, {}) for tree in (params, places))

    def parts(x: Any, place: NamedSharding) -> list[jax.Array]:
        each = [_of_one(place)] * x.shape[0]
        if isinstance(x, np.ndarray):
            return [
                mesh_lib.put(one.astype(model.dtype, copy=False), one_place)
                for one, one_place in zip(x, each, strict=True)
            ]
        if not isinstance(x, jax.Array):
            return [mesh_lib.put_from_files(x, place, model.dtype, i) for i, place in enumerate(each)]
        return _splitting(x.shape[0], each[0], model.dtype)(jnp.asarray(x))

    layers = jax.tree.map(parts, params["text"]["layers"], places["text"]["layers"])
    return functional.with_layers(rules.place(whole, at, model.dtype), layers)


@functools.lru_cache(maxsize=64)
def _splitting(layers: int, place: NamedSharding, dtype: jnp.dtype) -> Callable[[jax.Array], list[jax.Array]]:
    """The program that splits a stack; kept, as a model that is trained is loaded again and again."""
    return jax.jit(lambda stack: [one.astype(dtype) for one in stack], out_shardings=[place] * layers)


def _of_one(place: NamedSharding) -> NamedSharding:
    """The sharding of one layer of a stack."""
    return NamedSharding(place.mesh, PartitionSpec(*place.spec[1:]))


def damage(params: functional.Params, mesh: Mesh) -> str:
    """The first weight that is not finite, in words; "" if all are. Every process of the mesh calls it."""
    first_bad = jax.jit(lambda tree: jax.tree.map(_first_bad, tree), out_shardings=mesh_lib.replicated(mesh))
    found = []
    for keys, row in jax.tree_util.tree_leaves_with_path(jax.device_get(first_bad(params))):
        path = jax.tree_util.keystr(keys, simple=True, separator=".")
        if row >= 0 and (of_layer := _LAYER.fullmatch(path)):
            found.append((f"{of_layer[1]}.{of_layer[3]}", int(of_layer[2])))
        elif row >= 0:
            found.append((path, int(row)))
    if not found:
        return ""
    path, layer = min(found)
    return f"{path}, layer {layer}" if ".layers." in path else path


def cause(params: functional.Params, mesh: Mesh, compute: str) -> str:
    """Why logits are not finite, as far as the weights show it, and what to do: the end of a message."""
    bad = damage(params, mesh)
    way = "no answer is made of them; get the model again, or compute in another format with --config.precision.compute"
    if not bad:
        return f", though all its weights are: what they compute in {compute} overflows; {way}"
    return f", nor are the weights {bad} in {compute}; {way}"


def _first_bad(array: jax.Array) -> jax.Array:
    """The first index of the first axis (the layer, in a stack) with a number that is not finite; -1 if all are."""
    bad = ~jnp.isfinite(array.reshape(array.shape[0], -1)).all(axis=1)
    return jnp.where(bad.any(), bad.argmax(), -1)
