"""Adapters that do nothing are told."""

from __future__ import annotations

import dataclasses

import numpy as np

from tests.checkpoints import made
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import gate


def _with(change) -> checkpoint.Checkpoint:
    model = made.model(made.LORA)
    flat = {id_: change(id_, np.array(x)) for id_, x in trees.flatten(model.params).items()}
    return dataclasses.replace(model, params=trees.unflatten(flat))


def _zero(kind: str, layers: slice, id_: str, x: np.ndarray) -> np.ndarray:
    if id_.endswith(kind):
        x[layers] = 0
    return x


def test_adapters_are_counted() -> None:
    model = _with(lambda id_, x: np.ones_like(x) if ".lora_" in id_ else x)
    count = sum(x.shape[0] for id_, x in trees.flatten(model.params).items() if id_.endswith(".lora_b"))
    assert gate.told(model) == f"adapters: {count} modules matched of {count}, all of which change their layer"
    assert gate.told(made.model()) == ""


def test_adapters_without_effect_are_told() -> None:
    ones = _with(lambda id_, x: np.ones_like(x) if ".lora_" in id_ else x)
    for kind in (".lora_a", ".lora_b"):
        flat = {id_: _zero(kind, slice(None), id_, np.array(x)) for id_, x in trees.flatten(ones.params).items()}
        assert gate.told(dataclasses.replace(ones, params=trees.unflatten(flat))).startswith(
            "THESE ADAPTERS CHANGE NOTHING: "
        )
        flat = {id_: _zero(kind, slice(0, 1), id_, np.array(x)) for id_, x in trees.flatten(ones.params).items()}
        targets = sum(id_.endswith(kind) for id_ in flat)
        line = gate.told(dataclasses.replace(ones, params=trees.unflatten(flat)))
        assert line.endswith(f", of which {targets} change nothing (A or B is 0)")
