"""Settings that the model code does not have are errors that name key and file."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import pytest

from vlguard_jax import errors
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import model_config
from vlguard_jax.families.blocks import configs as sizes

ORIGINAL = {
    "model_type": "llava_llama",
    "mm_vision_tower": "tower",
    "mm_hidden_size": 24,
    "mm_projector_type": "mlp2x_gelu",
}


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
        ({"model_type": "llava", "text_config": {"model_type": "qwen2"}}, "model_type='qwen2' is not supported"),
        (
            {"model_type": "llava", "vision_config": {"model_type": "siglip_vision_model"}},
            "model_type='siglip_vision_model' is not",
        ),
        (
            {"model_type": "llava", "text_config": {}, "vision_feature_select_strategy": "full"},
            "vision_feature_select_strategy='full'",
        ),
        ({"model_type": "llama", "text_config": [1]}, "text_config=.* must be an object"),
        ({"model_type": "llava", "text_config": {}, "vision_config": "x"}, "vision_config='x' must be an object"),
        ({"model_type": "llama", "vlguard_jax": [1]}, "vlguard_jax=.* must be an object"),
        ({"model_type": "llama", "vlguard_jax": {"stand_in": "false"}}, "stand_in='false' must be true or false"),
        (
            {"model_type": "llama", "num_hidden_layers": 1024, "hidden_size": 1 << 20},
            "its sizes make .* parameters, at most 1e.12",
        ),
        ({"model_type": ["llama"]}, r"model_type is \['llama'\]"),
        (ORIGINAL | {"mm_vision_tower": 7}, "mm_vision_tower=7 must be a printable text"),
        (ORIGINAL | {"mm_vision_tower": "x" * 999}, "vision tower 'xxx.* is not found"),
        (ORIGINAL | {"mm_vision_tower": "a\0b"}, "mm_vision_tower=.* must be a printable text"),
        (
            {"model_type": "llava", "text_config": {}, "tie_word_embeddings": "false"},
            "tie_word_embeddings='false' must be true or false",
        ),
        ({"model_type": "llava", "text_config": {}, "vision_feature_layer": True}, "feature layer True is not one"),
        (
            {"model_type": "llava", "text_config": {}, "image_token_index": None, "image_token_id": "7"},
            "image_token_index='7' does not fit",
        ),
        (
            {"model_type": "llava", "text_config": {}, "vision_feature_layer": [-2, -3]},
            r"feature layer \[-2, -3\] is not one",
        ),
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


LLAMA = {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8,
    "low_freq_factor": 1,
    "high_freq_factor": 4,
    "original_max_position_embeddings": 8192,
}
TOWER = {
    "model_type": "clip_vision_model",
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 24,
    "num_attention_heads": 2,
}
NOT_NUMBERS = (math.inf, -math.inf, math.nan, 10**400, True, "1e-5", [1.0], {})
COUNTS = (0, -1, 10**9, 1 << 63, 2.0, "8", True, [], {}, math.nan)
FLAGS = ("false", "true", "", 0, 1, 0.0, [], {})
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        *((key, COUNTS) for key in SIZES),
        *(
            (key, (0, -1e-5, *NOT_NUMBERS))
            for key in ("rms_norm_eps", "rope_theta", "rope_scaling.factor", "rope_scaling.rope_theta")
        ),
        *(
            (f"rope_parameters.{key}", (0, -1.0, *NOT_NUMBERS))
            for key in ("low_freq_factor", "high_freq_factor", "factor")
        ),
        ("rope_parameters.low_freq_factor", (4.0, 5)),  # not below the high one: a division by zero
        ("rope_parameters.original_max_position_embeddings", COUNTS[:2] + COUNTS[3:]),
        ("rope_scaling.type", (7, [], {}, True, "x" * 3000, "a\0b")),
        ("rope_scaling", ("linear", 7, [1], True)),
        ("rope_parameters", ("linear", 7, [1], True)),
        ("partial_rotary_factor", (0.5, *NOT_NUMBERS)),
        ("tie_word_embeddings", FLAGS),
        *((key, FLAGS) for key in ("attention_bias", "mlp_bias")),
    ],
)
def test_numbers_that_no_model_has(key: str, values: tuple[Any, ...]) -> None:
    """Each is refused in a line that names file and key; the same config without it is read."""
    part, _, name = key.rpartition(".")
    base = {**LLAMA, "rope_parameters": LLAMA3} if part == "rope_parameters" else LLAMA
    model_config.text_config(base, "m/config.json")
    for value in values:
        config = {**base, part: {**base[part], name: value}} if part else {**base, name: value}
        with pytest.raises(errors.UserError, match=rf"^m/config\.json: .*{name}") as error:
            model_config.text_config(config, "m/config.json")
        assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("key", "values"),
    [
        *(
            (key, COUNTS)
            for key in ("image_size", "patch_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        ),
        ("num_attention_heads", (5, *COUNTS)),
        ("patch_size", (29,)),
        ("layer_norm_eps", (0, -1e-5, *NOT_NUMBERS)),
        ("num_channels", (1, True, 3.0, "3")),
        (
            "preprocessor.image_mean",
            (0.5, [0.5], [0.5] * 4, [0.5, 0.5, math.nan], [math.inf] * 3, ["a"] * 3, [True] * 3, "abc", {}),
        ),
        (
            "preprocessor.image_std",
            (0, [0.5, 0, 0.5], [0.5] * 2, [-1.0] * 3, [1e-300] * 3, [10**400] * 3, "abc", [[1]] * 3),
        ),
        ("preprocessor.rescale_factor", (0, 1, *NOT_NUMBERS)),
        *(
            (f"preprocessor.do_{step}", ("true", 1, "false", 0, False, []))
            for step in ("resize", "normalize", "rescale", "convert_rgb")
        ),
        ("preprocessor.resample", (3.0, True, "3", [])),
        ("preprocessor.size", (7, "28", [28], {"shortest_edge": [28]}, {"height": 28.0}, True)),
        ("preprocessor.crop_size", (7, "28", [28], {"height": 28, "width": []}, True)),
    ],
)
def test_towers_that_are_none(key: str, values: tuple[Any, ...]) -> None:
    part, _, name = key.rpartition(".")
    model_config.vision_config(TOWER, "t/config.json", {}, "t/p.json")
    for value in values:
        tower, preprocessor = (TOWER, {name: value}) if part else ({**TOWER, name: value}, None)
        where = r"t/p\.json" if part else r"t/config\.json"
        with pytest.raises(errors.UserError, match=rf"^{where}: .*{name}") as error:
            model_config.vision_config(tower, "t/config.json", preprocessor, "t/p.json")
        assert "\n" not in str(error.value) and len(str(error.value)) < 400


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
    assert vocabulary(model_config.padded(2048 + 2), 2048) == (2048, 2112)
    assert vocabulary(128, 126) == (126, 128)
    assert vocabulary(32000, 32000) == (32000, 32000)  # no row for the image token
    assert vocabulary(128, 10) == (128, 128)  # an ordinary id
    assert [model_config.padded(v + 2) for v in (1, 62, 63, 32000)] == [64, 64, 128, 32064]


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


def test_null_is_left_out() -> None:
    """As in transformers' configs, which write null for what is not set."""
    nothing = dict.fromkeys(
        (*SIZES, "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings")
    )
    assert model_config.text_config({"model_type": "llama", **nothing}, "x") == model_config.text_config(
        {"model_type": "llama"}, "x"
    )
    config = {"model_type": "llava", "text_config": None, "vision_config": None, "image_token_index": None}
    assert model_config.hf_config(config, pathlib.Path("nowhere"))[1] == 32000
