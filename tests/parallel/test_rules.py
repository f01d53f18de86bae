"""The families' tables place every parameter of the networks, name none that is not there, and what a mesh cannot
divide is refused."""

from collections.abc import Callable
import json
import math
import os
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from tests.families import tiny
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.training import program
from vlguard_jax.training import setup as training_setup

LORA = configs.LoraConfig(128, 256.0, 0.05)


def _spread(**sizes: int) -> Mesh:
    devices = jax.devices()[: math.prod(sizes.values())]
    return mesh_lib.build(config.MeshSettings(**sizes), devices)


def _specs(model: family.Config) -> dict[str, PartitionSpec]:
    places = rules.shardings(model, LORA, _spread(data=1, fsdp=2, tensor=2))
    return {path: place.spec for path, place in trees.flatten(places).items()}


def _shapes(model: family.Config) -> dict[str, tuple[int, ...]]:
    """Of the networks' own arrays."""
    made = functional.Model(model, "bf16", LORA).shapes()
    return {path: one.shape for path, one in trees.flatten(made).items()}


@pytest.mark.parametrize("model", [*table.PRESETS.values(), tiny.TEXT_ONLY], ids=[*table.PRESETS, "llama"])
def test_table_is_total_and_alive(model: family.Config) -> None:
    """Each array of the networks is named once, with its shape, and nothing else is."""
    paths, specs, listed = _shapes(model), _specs(model), table.of(model).parameters(model, LORA)
    assert len({one.id for one in listed}) == len(listed)
    assert {one.id: one.shape for one in listed} == paths
    assert specs.keys() == paths.keys()
    for path, shape in paths.items():
        assert len(specs[path]) <= len(shape), path


@pytest.mark.parametrize("put", [rules.abstract, rules.place])
def test_an_unknown_parameter_is_an_error(put: Callable[..., Any]) -> None:
    """So is one that has a place and is not there."""
    places = rules.shardings(tiny.TEXT_ONLY, None, _spread(data=1, fsdp=1, tensor=1))
    params = trees.flatten(tiny.random_params(functional.Model(tiny.TEXT_ONLY, "fp32")))
    more = params | {"text.layers.attention.q_proj.bias": np.zeros((2, 32), np.float32)}
    less = {path: value for path, value in params.items() if path != "text.norm.scale"}
    for changed, message in ((more, r"key sets is\s+bias"), (less, r"key sets is\s+norm")):
        with pytest.raises(ValueError, match=message):
            put(trees.unflatten(changed), places, np.dtype("float32"))


def test_large_parameters_are_split() -> None:
    """Nothing above 64 MiB of fp32 lies whole on a device, the frozen tower apart."""
    model = table.PRESETS["llava-v1.5-7b"]
    specs = _specs(model)
    for path, shape in _shapes(model).items():
        if math.prod(shape) * 4 > 2**26 and not path.startswith("vision."):
            assert any(axis is not None for axis in specs[path]), path


def test_indivisible_dimension_is_one_clear_line() -> None:
    mesh = _spread(data=1, fsdp=1, tensor=3)
    with pytest.raises(errors.UserError, match=r"divisible by mesh axis tensor=3; choose another config\.mesh\.tensor"):
        rules.shardings(tiny.CONFIG, None, mesh)


def test_mesh_sizes() -> None:
    devices = jax.devices()[:8]
    assert dict(mesh_lib.build(config.MeshSettings(data=2, fsdp=-1, tensor=2), devices).shape) == {
        "data": 2,
        "fsdp": 2,
        "tensor": 2,
    }
    assert mesh_lib.row_shards(mesh_lib.build(config.MeshSettings(), devices)) == 8
    for bad in ({"data": 3}, {"data": -1, "fsdp": -1}, {"data": 0}, {"data": 16, "fsdp": 1}):
        with pytest.raises(errors.UserError, match=r"config\.mesh="):
            mesh_lib.build(config.MeshSettings(**bad), devices)


def _placed(name: str, lora: configs.LoraConfig | None) -> dict[str, str]:
    """Of every array of a training's state and of the frozen parameters: its shape, and the axes it lies on."""
    settings = config.TrainConfig(
        data=config.DataSettings(sources={"some": config.SourceSettings()}),
        precision=config.PrecisionSettings("bf16", "fp32", "bf16"),
    )
    mesh = _spread(data=2, fsdp=2, tensor=2)
    built = program.build(settings, table.PRESETS[name], lora, mesh, 165)
    parts = {"state": training_setup.to_tree(built.state), "frozen": built.frozen}
    return {path: f"{x.dtype}{list(x.shape)} {tuple(x.sharding.spec)}" for path, x in trees.flatten(parts).items()}


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["llava-v1.5-7b", "llava-v1.5-13b"])
def test_places_are_the_stored_ones(name: str, lora: configs.LoraConfig | None) -> None:
    """Rewrite with VLGUARD_REWRITE=1 after a change that is meant."""
    stored = pathlib.Path(__file__).parent / "places" / f"{name}{'_lora' if lora else ''}.json"
    found = _placed(name, lora)
    if os.environ.get("VLGUARD_REWRITE"):
        stored.parent.mkdir(exist_ok=True)
        stored.write_text(json.dumps(found, indent=0) + "\n")
    assert found == json.loads(stored.read_text())
