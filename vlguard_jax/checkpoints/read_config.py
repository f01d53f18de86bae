"""`config.json` of a folder: which family and layout it is of."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax.families import family as family_lib
from vlguard_jax.families import table
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.blocks import configs

_CLIP = ("clip", "clip_vision_model")


@dataclasses.dataclass(frozen=True)
class Found:
    """layout: "llava", "llava-hf", "llama" or "clip". family: None for a tower alone. values: the file's content."""

    layout: str
    family: family_lib.Family | None
    values: dict[str, Any]


def read(folder: pathlib.Path) -> Found:
    """Read `config.json`.

    Raises:
      UserError: missing or broken file, another model type, or a section that is not an object.
    """
    path = folder / "config.json"
    values = files.read_object(path)
    looked_at = fields.Fields(values, str(path))
    for part in ("text_config", "vision_config"):
        looked_at.part(part)
    looked_at.part(family_lib.PROVENANCE).flag("stand_in")
    for family in table.FAMILIES:
        if layout := family.kind(values):
            return Found(layout, family, values)
    model_type = values.get("model_type")
    if model_type in _CLIP:
        return Found("clip", None, values)
    known = sorted({name for family in table.FAMILIES for name in family.model_types} | set(_CLIP))
    near = errors.nearest(model_type if isinstance(model_type, str) else "", known)
    raise errors.UserError(f"{path}: checkpoint of another model type: model_type is {errors.short(model_type)}{near}")


def of_tower(folder: pathlib.Path, feature_layer: object = -2) -> configs.VisionConfig:
    """The vision part of a CLIP folder (CLIPModel or CLIPVisionModel).

    Raises:
      UserError: not a CLIP folder, or see `config_json.vision_config`.
    """
    found = read(folder)
    if found.layout != "clip":
        raise errors.UserError(
            f"{folder / 'config.json'}: checkpoint of another model type: a CLIP vision tower was expected"
        )
    whole = found.values["model_type"] == "clip"
    part = found.values.get("vision_config") or {}
    vision = {"model_type": "clip_vision_model", **part} if whole else found.values
    preprocessor = config_json.read_preprocessor(folder)
    return config_json.vision_config(vision, str(folder / "config.json"), *preprocessor, feature_layer)
