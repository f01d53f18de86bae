"""Settings that the model code does not have are errors that name key and file."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from vlguard_jax import errors
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import model_config
from vlguard_jax.models import config as sizes

ORIGINAL = {"model_type": "llava_llama", "mm_vision_tower": "tower", "mm_hidden_size": 24, "mm_projector_type": "mlp2x_gelu"}


def folder(tmp_path: pathlib.Path, config: dict[str, Any]) -> pathlib.Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mistral"}, "checkpoint of another model type: model_type is 'mistral'"),
        ({}, "another model type: model_type is None"),
        (ORIGINAL | {"mm_use_im_start_end": True}, "mm_use_im_start_end=True is not supported"),
        (ORIGINAL | {"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature='cls_patch' is not supported"),
        (ORIGINAL | {"mm_projector_type": "identity"}, "mm_projector_type='identity' is not supported"),
        (ORIGINAL | {"image_aspect_ratio": "anyres"}, "image_aspect_ratio='anyres' is not supported"),
        ({"model_type": "llava"}, "no mm_vision_tower named here; give vision_tower"),
        (ORIGINAL, "vision tower 'tower' of config.json is not found"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias=True is not supported"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ({"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope type 'dynamic' is not supported"),
        ({"model_type": "llama", "rope_scaling": {"type": "linear"}}, "factor is missing in the rope settings of type linear"),
        ({"model_type": "llama", "hidden_size": -4}, "hidden_size=-4 must be a positive number"),
        ({"model_type": "llama", "num_key_value_heads": 5}, "num_key_value_heads=5 do not fit together"),
        ({"model_type": "llava", "text_config": {"model_type": "qwen2"}}, "model_type='qwen2' is not supported"),
        ({"model_type": "llava", "vision_config": {"model_type": "siglip_vision_model"}}, "model_type='siglip_vision_model' is not"),
        ({"model_type": "llava", "text_config": {}, "vision_feature_select_strategy": "full"}, "vision_feature_select_strategy='full'"),
        ({"model_type": "llava", "text_config": {}, "vision_feature_layer": [-2, -3]}, r"feature layer \[-2, -3\] is not one"),
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


def test_rope_of_both_generations() -> None:
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    expected = sizes.RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    old = {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **llama3}}
    new = {"model_type": "llama", "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **llama3}}
    for config in (old, new):
        text = model_config.text_config(config, "x")
        assert (text.rope_theta, text.rope_scaling) == (5e5, expected)
    text = model_config.text_config({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2}}, "x")
    assert (text.rope_theta, text.rope_scaling) == (10000.0, sizes.RopeScaling("linear", 2.0))


def test_vocabulary_behind_the_padding() -> None:
    def vocabulary(stored: int, image: int) -> tuple[int, int]:
        config = {"model_type": "llava", "text_config": {"vocab_size": stored}, "image_token_index": image}
        model, rows = model_config.hf_config(config, pathlib.Path("nowhere"))
        return model.text.vocab_size, rows

    assert vocabulary(32064, 32000) == (32000, 32064)
    assert vocabulary(model_config.padded_vocab(2048), 2048) == (2048, 2112)
    assert vocabulary(128, 126) == (126, 128)
    assert vocabulary(32000, 32000) == (32000, 32000)  # no row for the image token
    assert vocabulary(128, 10) == (128, 128)  # an ordinary id
    assert [model_config.padded_vocab(v) for v in (1, 62, 63, 32000)] == [64, 64, 128, 32064]


def test_preprocessor_is_read_and_checked(tmp_path: pathlib.Path) -> None:
    tower = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14}
    good = {"crop_size": {"height": 28, "width": 28}, "size": {"shortest_edge": 28}, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}
    folder(tmp_path, tower)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(good))
    vision = model_config.tower_config(tmp_path)
    assert (vision.image_mean, vision.image_std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    (tmp_path / "preprocessor_config.json").unlink()
    assert model_config.tower_config(tmp_path).image_mean == sizes.CLIP_MEAN
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": good}))
    assert model_config.tower_config(tmp_path) == vision
    for change, message in (
        ({"crop_size": 30}, "must be the tower's image_size, 28"),
        ({"do_normalize": False}, "do_normalize=False is not supported"),
        ({"resample": 2}, "resample=2 is not supported"),
        ({"rescale_factor": 1.0}, "rescale_factor=1.0 is not supported"),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(good | change))
        with pytest.raises(errors.UserError, match=rf"preprocessor_config\.json: .*{message}"):
            model_config.tower_config(tmp_path)
