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
from vlguard_jax.checkpoints import load
from vlguard_jax.families import table
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
