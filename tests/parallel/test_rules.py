"""The sharding table names every parameter exactly once, has no dead rule, and refuses what it cannot divide."""

import json
import os
import pathlib
import re

import jax
import pytest

from tests.families import tiny
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.training import program
from vlguard_jax.training import setup as training_setup

LORA = configs.LoraConfig(128, 256.0, 0.05)


def _paths(name: str) -> dict[str, jax.ShapeDtypeStruct]:
    return trees.flatten(functional.Model(table.PRESETS[name], "bf16", LORA).shapes())


@pytest.mark.parametrize("name", table.PRESETS)
def test_table_is_total_and_alive(name: str) -> None:
    paths = _paths(name)
    for path, shape in paths.items():
        assert len(rules.spec(path)) <= len(shape.shape), path
    for pattern, _ in rules.RULES:
        assert any(re.fullmatch(pattern, path) for path in paths), f"rule {pattern} names nothing"


def test_an_unknown_parameter_is_an_error() -> None:
    with pytest.raises(KeyError, match="0 sharding rules"):
        rules.spec("text.layers.attention.q_proj.bias")


def test_large_parameters_are_split() -> None:
    """Nothing above 64 MiB of fp32 lies whole on a device, the frozen tower apart."""
    for path, shape in _paths("llava-v1.5-7b").items():
        if shape.size * 4 > 2**26 and not path.startswith("vision."):
            assert any(axis is not None for axis in rules.spec(path)), path


def test_indivisible_dimension_is_one_clear_line() -> None:
    mesh = mesh_lib.build(config.MeshSettings(data=1, fsdp=1, tensor=3), jax.devices()[:3])
    with pytest.raises(errors.UserError, match=r"divisible by mesh axis tensor=3; choose another config\.mesh\.tensor"):
        rules.shardings(functional.Model(tiny.CONFIG, "fp32").shapes(), mesh)


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
    mesh = mesh_lib.build(config.MeshSettings(data=2, fsdp=2, tensor=2), jax.devices()[:8])
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
