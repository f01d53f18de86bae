"""`plan` refuses, with the same line, what `train` and `evaluate` refuse at their start."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from tests.families import tiny
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.generation import program as generation_program
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.planning import chips
from vlguard_jax.planning import refusals
from vlguard_jax.training import program as training_program

MODEL = table.PRESETS["llava-v1.5-7b"]
TRAIN = config.TrainConfig(data=config.DataSettings(sources={"a": config.SourceSettings(path="x")}))
EVAL = config.EvalConfig()


def refused(settings: config.TrainConfig | config.EvalConfig, name: str, model: family.Config = MODEL) -> str:
    with pytest.raises(errors.UserError) as caught:
        refusals.check(settings, model, chips.parse(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["v5e:4x4", "2xv5e:4x4", "v4:2x2x1", "v5p:4x4x4", "tpu7x:2x2x1", "v6e:16x16", "h100:1", "h100:8", "h100:16"]
)
@pytest.mark.parametrize("settings", [TRAIN, dataclasses.replace(TRAIN, lora=config.LoraSettings(rank=128)), EVAL])
def test_what_can_be_built_is_not_refused(settings, name):
    refusals.check(settings, MODEL, chips.parse(name))


@pytest.mark.parametrize("settings", [TRAIN, EVAL])
@pytest.mark.parametrize("model", [MODEL, table.PRESETS["llava-v1.5-13b"]])
@pytest.mark.parametrize("name", ["h100:3", "h100:5", "h100:6", "h100:7", "h100:24"])
def test_sizes_that_the_devices_do_not_divide(settings, model, name):
    assert "is not divisible by mesh axis fsdp=" in refused(settings, name, model)


def test_the_line_is_that_of_the_run():
    """On as many devices as the tests have, the run's own program says the same."""
    mesh = config.MeshSettings(data=1, fsdp=1, tensor=3)
    build = {
        "train": lambda: training_program.build(
            dataclasses.replace(TRAIN, mesh=mesh), tiny.CONFIG, None, mesh_lib.build(mesh, jax.devices()[:3]), 1
        ),
        "evaluate": lambda: generation_program.build(
            tiny.CONFIG, None, "fp32", mesh_lib.build(mesh, jax.devices()[:3]), max_new=1
        ),
    }
    for name, settings in {"train": TRAIN, "evaluate": EVAL}.items():
        with pytest.raises(errors.UserError) as caught:
            build[name]()
        assert refused(dataclasses.replace(settings, mesh=mesh), "h100:3", tiny.CONFIG) == str(caught.value)


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({"mesh": config.MeshSettings(tensor=3, fsdp=1)}, "h100:3", "config.mesh.tensor=3 must divide 32 heads"),
        ({"mesh": config.MeshSettings(fsdp=16)}, "h100:8", "does not multiply to the 8 devices of h100:8"),
        (
            {"mesh": config.MeshSettings(slices=2)},
            "v5e:4x4",
            "config.mesh.slices=2, but the devices of v5e:4x4 are of 1",
        ),
        ({"mesh": config.MeshSettings(data=3, fsdp=-1)}, "2xv5e:2x2", "8 devices of 2xv5e:2x2; 3 does not divide"),
        (
            {"mesh": config.MeshSettings(data=4, fsdp=-1)},
            "8xv5e:2x2",
            "must be a multiple of the 8 slices of 8xv5e:2x2",
        ),
        (
            {"run": config.RunSettings(attention="splash")},
            "h100:8",
            "config.run.attention='splash' does not run on gpu",
        ),
        ({"run": config.RunSettings(attention="cudnn")}, "v5e:4x4", "config.run.attention='cudnn' does not run on tpu"),
        ({"loss": "cross_entropie"}, "v5e:4x4", "cross_entrop"),
        ({"model": config.ModelSettings(template="vicuna")}, "v5e:4x4", "template 'vicuna' is unknown"),
    ],
)
def test_other_refusals_of_a_training(changes, name, message):
    assert message in refused(dataclasses.replace(TRAIN, **changes), name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judges": ("keyword",)}, "config.judges: 'keyword' is unknown"),
        ({"benchmark": config.BenchmarkSettings(name="vlgard")}, "did you mean 'vlguard'"),
        ({"paper_row": "nobody"}, "nobody"),
        ({"model": config.ModelSettings(template="vicuna")}, "template 'vicuna' is unknown"),
    ],
)
def test_other_refusals_of_an_evaluation(changes, message):
    assert message in refused(dataclasses.replace(EVAL, **changes), "v5e:4x4")
