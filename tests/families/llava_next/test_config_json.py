"""Settings of LLaVA-NeXT's config.json: pinpoints in both layouts, and what the model code does not have."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from tests.families import tiny
from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax.checkpoints import components
from vlguard_jax.checkpoints import load
from vlguard_jax.families import table
from vlguard_jax.families.blocks import config_json as blocks_json
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava_next import config as next_config
from vlguard_jax.families.llava_next import config_json

POINTS = [[672, 336], [336, 1008]]
ORIGINAL = {
    "model_type": "llava_llama",
    "mm_vision_tower": "tower",
    "mm_patch_merge_type": "spatial_unpad",
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": POINTS,
}
HF = {"model_type": "llava_next"}
HUGE = HF | {"vision_config": {"image_size": 4096, "patch_size": 1024}}  # 12 x 12 tiles would take 7 GB a picture


def folder(tmp_path: pathlib.Path, config: dict[str, Any]) -> pathlib.Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


PAIRS = (
    "must be 1 to 64 pairs of a height and a width, multiples of the tile's 336 pixels up to 12 of them, 67,108,864"
    " pixels in all"
)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ORIGINAL | {"mm_patch_merge_type": "spatial"}, "mm_patch_merge_type='spatial' is not supported"),
        (ORIGINAL | {"mm_patch_merge_type": "flat"}, "mm_patch_merge_type='flat' is not supported"),
        (ORIGINAL | {"image_aspect_ratio": "anyres_max_9"}, "image_aspect_ratio='anyres_max_9' is not supported"),
        (ORIGINAL | {"image_aspect_ratio": "pad"}, "image_aspect_ratio='pad' is not supported"),
        (ORIGINAL | {"image_grid_pinpoints": None}, "image_grid_pinpoints is missing"),
        (ORIGINAL | {"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature='cls_patch' is not supported"),
        (ORIGINAL, "vision tower 'tower' of config.json is not found"),
        (HF | {"use_image_newline_parameter": False}, "use_image_newline_parameter=False is not supported"),
        (HF | {"text_config": {"model_type": "mixtral"}}, "model_type='mixtral' is not supported"),
        (
            HF | {"text_config": {"model_type": "mistral"}},
            "sliding_window=4096 is shorter than max_position_embeddings",
        ),
        (HF | {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy='full' is not supported"),
        (HF | {"image_grid_pinpoints": []}, rf"image_grid_pinpoints=\[\] {PAIRS}"),
        (HF | {"image_grid_pinpoints": [[336, 700]]}, rf"image_grid_pinpoints=\[\[336, 700\]\] {PAIRS}"),
        (HF | {"image_grid_pinpoints": [[336, 336 * 13]]}, PAIRS),
        (HF | {"image_grid_pinpoints": [[336, 0]]}, PAIRS),
        (HF | {"image_grid_pinpoints": [[336, True]]}, PAIRS),
        (HF | {"image_grid_pinpoints": [[336]]}, PAIRS),
        (HF | {"image_grid_pinpoints": [336]}, PAIRS),
        (HF | {"image_grid_pinpoints": "336"}, PAIRS),
        (HF | {"image_grid_pinpoints": [[336, 672]] * 65}, PAIRS),
        (HUGE | {"image_grid_pinpoints": [[4096, 4096], [8192, 12288]]}, PAIRS.replace("336", "4096")),
    ],
)
def test_unsupported_settings(tmp_path: pathlib.Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.UserError, match=message) as caught:
        load.load(folder(tmp_path, config))
    assert "\n" not in str(caught.value)


def test_pinpoints_of_the_processor_are_the_model_s(tmp_path: pathlib.Path) -> None:
    settings = {"image_grid_pinpoints": [[336, 672]], "crop_size": 336}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(errors.UserError, match=r"preprocessor_config\.json: its image_grid_pinpoints are not those of"):
        load.load(folder(tmp_path, HF))
    config_json.read_hf(HF | {"image_grid_pinpoints": [[336, 672]]}, tmp_path)


def test_the_original_layout_holds_widths_first() -> None:
    model = config_json.read_original(ORIGINAL, "config.json", tiny.CONFIG.text, tiny.CONFIG.vision.__class__(**BIG))
    assert model.pinpoints == ((336, 672), (1008, 336))
    assert config_json.write_original(model, {}, "float32")["image_grid_pinpoints"] == POINTS
    assert config_json.kind(config_json.write_original(model, {}, "float32")) == "llava"
    hf, _ = config_json.read_hf(HF | {"image_grid_pinpoints": POINTS}, pathlib.Path("nowhere"))
    assert hf.pinpoints == ((672, 336), (336, 1008))


BIG = vars(tiny.CONFIG.vision) | {"image_size": 336, "patch_size": 14}


def test_what_hf_leaves_out_is_as_published() -> None:
    model, stored = config_json.read_hf(HF, pathlib.Path("nowhere"))
    assert (model.pinpoints, stored) == (next_config.V1_6, 32000)


def test_each_config_is_of_one_family() -> None:
    for config in (ORIGINAL, HF, {"model_type": "llava"}, {"model_type": "llava", "text_config": {}}):
        assert sum(bool(family.kind(config)) for family in table.FAMILIES) == 1, config


@pytest.mark.parametrize("points", [None, [[24, 25]], "x", [], [[24, 24]] * 65])
def test_a_stored_record_with_other_pinpoints(points: Any) -> None:
    record = json.loads(json.dumps(dataclasses.asdict(tiny.NEXT)))
    assert next_config.from_record(fields.Fields(record, "checkpoint.json")) == tiny.NEXT
    with pytest.raises(errors.UserError, match=r"checkpoint\.json: pinpoints=.* must be 1 to 64 pairs"):
        next_config.from_record(fields.Fields(record | {"pinpoints": points}, "checkpoint.json"))


GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
TOWER = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
PUBLISHED_HF = {  # what llava-hf/{name}-hf says of its decoder
    "llava-v1.6-mistral-7b": {
        "image_token_index": 32000,
        "text_config": {
            "architectures": ["MistralForCausalLM"],
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "vocab_size": 32064,
        },
        "vocab_size": 32064,
    },
    "llama3-llava-next-8b": {
        "image_token_index": 128256,
        "text_config": {
            "architectures": ["LlamaForCausalLM"],
            "bos_token_id": 128000,
            "eos_token_id": 128009,
            "intermediate_size": 14336,
            "max_position_embeddings": 8192,
            "model_type": "llama",
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "vocab_size": 128320,
        },
    },
}
_LLAVA = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "image_aspect_ratio": "anyres",
    "image_crop_resolution": 224,
    "image_grid_pinpoints": GRID,
    "image_split_resolution": 224,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "mm_hidden_size": 1024,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_lr": None,
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None,
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_vision_tower_lr": 2e-06,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
}
PUBLISHED_LLAVA = {  # liuhaotian/llava-v1.6-mistral-7b, lmms-lab/llama3-llava-next-8b
    "llava-v1.6-mistral-7b": _LLAVA
    | {
        "architectures": ["LlavaMistralForCausalLM"],
        "max_position_embeddings": 32768,
        "model_type": "llava_mistral",
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 4096,
        "tokenizer_padding_side": "left",
        "vocab_size": 32000,
    },
    "llama3-llava-next-8b": _LLAVA
    | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "max_position_embeddings": 8192,
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "model_type": "llava_llama",
        "rope_theta": 500000.0,
        "vocab_size": 128256,
    },
}


@pytest.mark.parametrize("name", PUBLISHED_HF)
def test_the_published_files_have_the_sizes_of_the_presets(name: str) -> None:
    expected = table.PRESETS[name]
    hf = HF | {"image_grid_pinpoints": GRID, "vision_config": TOWER} | PUBLISHED_HF[name]
    found, stored = config_json.read_hf(hf, pathlib.Path("nowhere"))
    assert found == expected and found.text.architecture == expected.text.architecture
    assert stored == expected.text.vocab_size + 64
    original = PUBLISHED_LLAVA[name]
    assert config_json.kind(original) == "llava" and components.keeps_tower(original, "x") == ("llama3" in name)
    config_json.check_original(original, "x")
    text = blocks_json.text_config(original, "x")
    found = config_json.read_original(original, "x", text, configs.CLIP_VIT_L_14_336)
    turned = tuple((high, wide) for wide, high in expected.pinpoints)  # the same list, with widths first
    assert found == dataclasses.replace(expected, pinpoints=turned)
    assert found.text.architecture == expected.text.architecture
