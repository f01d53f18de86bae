"""A folder's config.json names its family; what the model code does not have is an error that names key and file."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from vlguard_jax import errors
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import read_config
from vlguard_jax.families.blocks import configs


def folder(tmp_path: pathlib.Path, config: dict[str, Any]) -> pathlib.Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "checkpoint of another model type: model_type is 'gpt2'; known: [^;?]*$"),
        ({"model_type": "lama"}, r"another model type: model_type is 'lama'; did you mean 'llama'\?$"),
        ({}, "another model type: model_type is None; known: clip, .*llama, .*llava, .*llava_llama"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias=True is not supported"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        (
            {"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope type 'dynamic' is not supported",
        ),
        (
            {"model_type": "llama", "rope_scaling": {"type": "linear"}},
            "factor is missing in the rope settings of type linear",
        ),
        ({"model_type": "llama", "hidden_size": -4}, "hidden_size=-4 must be a whole number from 1 to 1,048,576"),
        ({"model_type": "llama", "num_key_value_heads": 5}, "num_key_value_heads=5 do not fit together"),
        ({"model_type": "llama", "text_config": [1]}, "text_config=.* must be an object"),
        ({"model_type": "llama", "vlguard_jax": [1]}, "vlguard_jax=.* must be an object"),
        ({"model_type": "llama", "vlguard_jax": {"stand_in": "false"}}, "stand_in='false' must be true or false"),
        (
            {"model_type": "llama", "num_hidden_layers": 1024, "hidden_size": 1 << 20},
            "its sizes make .* parameters, at most 1e.12",
        ),
        ({"model_type": ["llama"]}, r"model_type is \['llama'\]"),
    ],
)
def test_unsupported_settings(tmp_path: pathlib.Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        load.load(folder(tmp_path, config))


def test_messages_name_the_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.UserError, match=r"config\.json: hidden_act="):
        load.load(folder(tmp_path, {"model_type": "llama", "hidden_act": "gelu"}))
    (tmp_path / "config.json").unlink()
    with pytest.raises(errors.UserError, match=r"config\.json: no such file"):
        load.load(tmp_path)


def test_preprocessor_is_read_and_checked(tmp_path: pathlib.Path) -> None:
    tower = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14}
    good = {
        "crop_size": {"height": 28, "width": 28},
        "size": {"shortest_edge": 28},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [1, 2, 3],
    }
    folder(tmp_path, tower)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(good))
    vision = read_config.of_tower(tmp_path)
    assert (vision.image_mean, vision.image_std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    (tmp_path / "preprocessor_config.json").unlink()
    assert read_config.of_tower(tmp_path).image_mean == configs.CLIP_MEAN
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": good}))
    assert read_config.of_tower(tmp_path) == vision
    for change, message in (
        ({"crop_size": 30}, "must be the tower's image_size, 28"),
        ({"do_normalize": False}, "do_normalize=False is not supported"),
        ({"resample": 2}, "resample=2 is not supported"),
        ({"rescale_factor": 1.0}, "rescale_factor=1.0 is not supported"),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(good | change))
        with pytest.raises(errors.UserError, match=rf"preprocessor_config\.json: .*{message}"):
            read_config.of_tower(tmp_path)
