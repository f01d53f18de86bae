"""Settings of LLaVA's config.json that the model code does not have, and the vocabulary behind llava-hf's padding."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from tests.families import tiny
from vlguard_jax import errors
from vlguard_jax.checkpoints import load
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config_json

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
        (ORIGINAL | {"mm_use_im_start_end": True}, "mm_use_im_start_end=True is not supported"),
        (ORIGINAL | {"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature='cls_patch' is not supported"),
        (ORIGINAL | {"mm_projector_type": "identity"}, "mm_projector_type='identity' is not supported"),
        (ORIGINAL | {"image_aspect_ratio": "anyres"}, "mm_patch_merge_type='flat' is not supported"),
        ({"model_type": "llava"}, "no mm_vision_tower named here; give vision_tower"),
        (ORIGINAL, "vision tower 'tower' of config.json is not found"),
        ({"model_type": "llava", "text_config": {"model_type": "qwen2"}}, "model_type='qwen2' is not supported"),
        (
            {"model_type": "llava", "vision_config": {"model_type": "siglip_vision_model"}},
            "model_type='siglip_vision_model' is not",
        ),
        (
            {"model_type": "llava", "text_config": {}, "vision_feature_select_strategy": "full"},
            "vision_feature_select_strategy='full'",
        ),
        ({"model_type": "llava", "text_config": {}, "vision_config": "x"}, "vision_config='x' must be an object"),
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


def test_vocabulary_behind_the_padding() -> None:
    def vocabulary(stored: int, image: int) -> tuple[int, int]:
        config = {"model_type": "llava", "text_config": {"vocab_size": stored}, "image_token_index": image}
        model, rows = config_json.read_hf(config, pathlib.Path("nowhere"))
        return model.text.vocab_size, rows

    assert vocabulary(32064, 32000) == (32000, 32064)
    assert vocabulary(config_json.padded(2048 + 2), 2048) == (2048, 2112)
    assert vocabulary(128, 126) == (126, 128)
    assert vocabulary(32000, 32000) == (32000, 32000)  # no row for the image token
    assert vocabulary(128, 10) == (128, 128)  # an ordinary id
    assert [config_json.padded(v + 2) for v in (1, 62, 63, 32000)] == [64, 64, 128, 32064]


def test_names_of_the_tower() -> None:
    def named(vision: configs.VisionConfig, **extras: str) -> str:
        config = dataclasses.replace(tiny.CONFIG, vision=vision)
        return config_json.write_original(config, {**extras}, "float32")["mm_vision_tower"]

    assert named(tiny.CONFIG.vision) == "vision_tower"
    assert named(tiny.CONFIG.vision, vision_tower="some/tower") == "some/tower"
    assert named(configs.CLIP_VIT_L_14_336) == "openai/clip-vit-large-patch14-336"


def test_null_is_left_out() -> None:
    """As in transformers' configs, which write null for what is not set."""
    config = {"model_type": "llava", "text_config": None, "vision_config": None, "image_token_index": None}
    assert config_json.read_hf(config, pathlib.Path("nowhere"))[1] == 32000
