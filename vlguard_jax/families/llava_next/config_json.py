"""`config.json` of LLaVA-NeXT, read and written: LLaVA's own layout (llava/model/llava_arch.py) and llava-hf
(transformers' LlavaNextConfig, 4.39 to 5.x). Everything but tiles is as in LLaVA-1.5.

`image_grid_pinpoints` holds widths and heights in LLaVA's own layout (llava/mm_utils.py), heights and widths in
llava-hf. The order of the list decides between pinpoints that are equally good, so it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families.blocks import config_json as blocks_json
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import added_tokens
from vlguard_jax.families.llava import config_json
from vlguard_jax.families.llava_next import config as next_config
from vlguard_jax.families.llava_next import tiles

MODEL_TYPES = ("llava_next", *config_json.MODEL_TYPES)
_PINPOINTS = "image_grid_pinpoints"


def kind(config: Mapping[str, Any]) -> str:
    """ "llava" (its own layout), "llava-hf", or "" for another model's config."""
    if config.get("model_type") == "llava_next":
        return "llava-hf"
    return "llava" if config_json.tiled(config) else ""


def check_original(config: Mapping[str, Any], where: str) -> None:
    """Check the keys that LLaVA's own layout adds to Llama's.

    Raises:
      UserError: one of them asks for something that the model code does not do.
    """
    found = fields.Fields({"mm_patch_merge_type": "flat", "image_aspect_ratio": "square", **config}, where)
    found.only(mm_patch_merge_type=("spatial_unpad",), image_aspect_ratio=("anyres",))
    if config.get(_PINPOINTS) is None:
        raise errors.UserError(f"{where}: {_PINPOINTS} is missing: get the file again")
    config_json.check_original({**config, "mm_patch_merge_type": "flat", "image_aspect_ratio": "pad"}, where)


def read_original(
    config: Mapping[str, Any], where: str, text: configs.TextConfig, vision: configs.VisionConfig
) -> next_config.LlavaNextConfig:
    """Sizes from a config that `check_original` has checked; without pinpoints, those of the published models."""
    base = config_json.read_original(config, where, text, vision)
    points = next_config.pinpoints(
        fields.Fields(config, where), _PINPOINTS, vision.image_size, _turned(next_config.of_v1_6(vision.image_size))
    )
    return next_config.LlavaNextConfig(base.text, base.vision, base.projector, _turned(points))


def read_hf(config: Mapping[str, Any], folder: pathlib.Path) -> tuple[next_config.LlavaNextConfig, int]:
    """A llava-hf config; returns (config with the true vocabulary, rows of embedding and head in the files).

    Raises:
      UserError: an unsupported setting, or an image processor with other pinpoints than the model.
    """
    where = str(folder / "config.json")
    found = fields.Fields(config, where)
    found.only(use_image_newline_parameter=(True,))
    base, stored = config_json.read_hf(config, folder)
    side = base.vision.image_size
    points = next_config.pinpoints(found, _PINPOINTS, side, next_config.V1_6)
    settings, settings_where = blocks_json.read_preprocessor(folder)
    theirs = next_config.pinpoints(fields.Fields(settings or {}, settings_where), _PINPOINTS, side, points)
    if theirs != points:
        raise errors.UserError(
            f"{settings_where}: its {_PINPOINTS} are not those of {where}, and a model sees one kind of tiles:"
            " correct one of the files"
        )
    return next_config.LlavaNextConfig(base.text, base.vision, base.projector, points), stored


def write_original(config: next_config.LlavaNextConfig, extras: extras_lib.Extras, dtype: str) -> dict[str, Any]:
    """`config.json` of LLaVA's own layout. The tower of the published models was trained, so it is in the files."""
    made = config_json.write_original(config, extras, dtype)
    if extras.get("kind") == "llava":
        return made
    return made | {
        "mm_patch_merge_type": "spatial_unpad",
        "image_aspect_ratio": "anyres",
        _PINPOINTS: [list(point) for point in _turned(config.pinpoints)],
        "unfreeze_mm_vision_tower": True,
    }


def write_hf(
    config: next_config.LlavaNextConfig, extras: extras_lib.Extras, dtype: str, tokens: added_tokens.HfTokens
) -> dict[str, Any]:
    """`config.json` of the llava-hf layout with these added tokens."""
    made = config_json.write_hf(config, extras, dtype, tokens)
    if extras.get("kind") == "llava-hf":
        return made
    return made | {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "model_type": "llava_next",
        _PINPOINTS: [list(point) for point in config.pinpoints],
        "use_image_newline_parameter": True,
    }


def processors(config: next_config.LlavaNextConfig, extras: extras_lib.Extras) -> dict[str, dict[str, Any]]:
    """The files of a LlavaNextProcessor."""
    made = config_json.processors(config, extras)
    pictures = made["preprocessor_config.json"]
    if not str(pictures.get("image_processor_type")).startswith("LlavaNext"):
        pictures["image_processor_type"] = "LlavaNextImageProcessor"
    pictures |= {_PINPOINTS: [list(point) for point in config.pinpoints], "do_pad": True}
    return made | {"processor_config.json": made["processor_config.json"] | {"processor_class": "LlavaNextProcessor"}}


def _turned(pinpoints: tiles.Pinpoints) -> tiles.Pinpoints:
    """Widths and heights for heights and widths, and back."""
    return tuple((second, first) for first, second in pinpoints)
