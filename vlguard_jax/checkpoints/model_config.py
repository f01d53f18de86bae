"""`config.json` of every supported layout -> models.config, and back. Keys and defaults: transformers' LlamaConfig,
CLIPVisionConfig and LlavaConfig (4.36 to 5.x); LLaVA's additions: llava/train/train.py.

A setting that the model code does not have is an error that names key and file, never a silent difference.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.models import config as model_config

OPENAI_TOWER = "openai/clip-vit-large-patch14-336"
VOCAB_MULTIPLE = 64  # llava-hf pads the rows of embedding and head to this
DEFAULT_IMAGE_ID = 32000  # LlavaConfig's

# What a llava-hf config means when it names no vision_config.
_HF_DEFAULT_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


def read_config(folder: pathlib.Path) -> tuple[str, dict[str, Any]]:
    """Read `config.json`; returns (kind, its content) with kind "llava", "llava-hf", "llama" or "clip".

    Raises:
      UserError: missing or broken file, another model type, or a part that is no object.
    """
    path = folder / "config.json"
    config = files.read_object(path)
    looked_at = fields.Fields(config, str(path))
    for part in ("text_config", "vision_config"):
        looked_at.part(part)
    looked_at.part(checkpoint.PROVENANCE).flag("stand_in")
    model_type = config.get("model_type")
    if model_type in ("llava", "llava_llama"):
        return ("llava-hf" if "text_config" in config or "vision_config" in config else "llava"), config
    if model_type == "llama":
        return "llama", config
    if model_type in ("clip", "clip_vision_model"):
        return "clip", config
    raise errors.UserError(
        f"{path}: checkpoint of another model type: model_type is {errors.short(model_type)}; known: llava,"
        " llava_llama, llama, clip"
    )


def text_config(config: Mapping[str, Any], where: str) -> model_config.TextConfig:
    """A Llama config (keys left out have LlamaConfig's defaults).

    Raises:
      UserError: a setting that is not supported or makes no sense; `where` names the file.
    """
    found = fields.Fields(config, where)
    found.only(
        model_type=("llama", "llava", "llava_llama"), hidden_act=("silu",), attention_bias=(False,), mlp_bias=(False,)
    )
    width, heads = found.size("hidden_size", 4096), found.size("num_attention_heads", 32)
    kv_heads, head_width = found.size("num_key_value_heads", heads), found.size("head_dim", max(1, width // heads))
    if heads % kv_heads or head_width % 2 or (config.get("head_dim") is None and width % heads):
        raise errors.UserError(
            f"{where}: hidden_size={width}, num_attention_heads={heads}, num_key_value_heads={kv_heads} do not"
            " fit together"
        )
    theta, scaling = rope(config, where)
    return model_config.TextConfig(
        vocab_size=found.size("vocab_size", 32000),
        width=width,
        num_layers=found.size("num_hidden_layers", 32, most=limits.LAYERS),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_width=head_width,
        mlp_width=found.size("intermediate_size", 11008),
        norm_eps=found.number("rms_norm_eps", 1e-6, most=1.0),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=found.flag("tie_word_embeddings"),
    )


def rope(config: Mapping[str, Any], where: str) -> tuple[float, model_config.RopeScaling | None]:
    """Rope base and scaling from `rope_parameters` (5.x) or `rope_theta` and `rope_scaling` (4.x).

    Raises:
      UserError: another kind of scaling, or a number that is missing, not finite or not positive.
    """
    whole = fields.Fields(config, where)
    scaling = fields.Fields({**whole.part("rope_scaling").values, **whole.part("rope_parameters").values}, where)
    theta = scaling.number("rope_theta", whole.number("rope_theta", 10000.0, least=1.0), least=1.0)
    if scaling.number("partial_rotary_factor", whole.number("partial_rotary_factor", 1.0)) != 1.0:
        raise errors.UserError(f"{where}: partial_rotary_factor is not supported")
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3"):
        raise errors.UserError(
            f"{where}: rope type {errors.short(kind)} is not supported (only default, linear, llama3)"
        )
    settings = f"the rope settings of type {kind}"
    factor = scaling.number("factor", of=settings)
    if kind == "linear":
        return theta, model_config.RopeScaling("linear", factor)
    low, high = (scaling.number(f"{which}_freq_factor", of=settings) for which in ("low", "high"))
    if low >= high:
        raise errors.UserError(f"{where}: low_freq_factor={low:g} must be below high_freq_factor={high:g}")
    positions = scaling.size("original_max_position_embeddings", most=limits.POSITIONS)
    return theta, model_config.RopeScaling("llama3", factor, low, high, positions)


def vision_config(
    config: Mapping[str, Any],
    where: str,
    preprocessor: Mapping[str, Any] | None,
    preprocessor_where: str,
    feature_layer: object = -2,
) -> model_config.VisionConfig:
    """A CLIP vision config (the `vision_config` of a CLIPModel, or a CLIPVisionModel's own) with its preprocessor's
    constants; keys left out have CLIPVisionConfig's defaults.

    Raises:
      UserError: another tower, unsupported activation, or a preprocessor that does something else than LLaVA's.
    """
    found = fields.Fields(config, where)
    found.only(model_type=("clip_vision_model",), hidden_act=("quick_gelu", "gelu"), num_channels=(3,))
    image_size, patch_size = (
        found.size("image_size", 224, most=limits.SIDE),
        found.size("patch_size", 32, most=limits.SIDE),
    )
    num_layers = found.size("num_hidden_layers", 12, most=limits.LAYERS)
    width, heads = found.size("hidden_size", 768), found.size("num_attention_heads", 12)
    if patch_size > image_size or width % heads:
        raise errors.UserError(
            f"{where}: image_size={image_size} and patch_size={patch_size}, or hidden_size={width} and"
            f" num_attention_heads={heads}, do not"
            " fit together"
        )
    if type(feature_layer) is not int or not -num_layers - 1 <= feature_layer <= num_layers:
        raise errors.UserError(
            f"{where}: feature layer {errors.short(feature_layer)} is not one of the tower's {num_layers} layers"
        )
    mean, std = _pixel_constants(fields.Fields(preprocessor or {}, preprocessor_where), image_size)
    return model_config.VisionConfig(
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        num_layers=num_layers,
        num_heads=heads,
        mlp_width=found.size("intermediate_size", 3072),
        norm_eps=found.number("layer_norm_eps", 1e-5, most=1.0),
        activation=found.text("hidden_act", "quick_gelu"),
        feature_layer=feature_layer,
        image_mean=mean,
        image_std=std,
    )


def _pixel_constants(found: fields.Fields, image_size: int) -> tuple[Any, Any]:
    always = {f"do_{step}": (True, None) for step in ("resize", "center_crop", "normalize", "rescale", "convert_rgb")}
    found.only(resample=(3, None), **always)
    if abs(found.number("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise errors.UserError(
            f"{found.where}: rescale_factor={found.values['rescale_factor']!r} is not supported (only 1/255)"
        )
    crop, size = (found.values.get(key) for key in ("crop_size", "size"))
    sides = [*crop.values()] if isinstance(crop, Mapping) else [crop]
    sides += [size.get("shortest_edge", size.get("height"))] if isinstance(size, Mapping) else [size]
    if any(side is not None and (type(side) is not int or side != image_size) for side in sides):
        shown = f"{errors.short(crop)} and {errors.short(size)}"
        raise errors.UserError(
            f"{found.where}: crop_size and size must be the tower's image_size, {image_size}, not {shown}"
        )
    most = limits.CHANNEL_SCALE
    mean = found.numbers("image_mean", model_config.CLIP_MEAN, least=-most, most=most)
    return mean, found.numbers("image_std", model_config.CLIP_STD, least=1 / most, most=most)


def read_preprocessor(folder: pathlib.Path) -> tuple[dict[str, Any] | None, str]:
    """The image settings of a folder and the file they stand in; (None, "") where it has none."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return files.read_object(path), str(path)
    path = folder / "processor_config.json"  # transformers 5.x keeps them here
    if path.is_file() and (found := files.read_object(path)).get("image_processor") is not None:
        return dict(fields.Fields(found, str(path)).part("image_processor").values), str(path)
    return None, ""


def tower_config(folder: pathlib.Path, feature_layer: object = -2) -> model_config.VisionConfig:
    """The vision part of a CLIP folder (CLIPModel or CLIPVisionModel).

    Raises:
      UserError: not a CLIP folder, or see `vision_config`.
    """
    kind, config = read_config(folder)
    if kind != "clip":
        raise errors.UserError(
            f"{folder / 'config.json'}: checkpoint of another model type: a CLIP vision tower was expected"
        )
    whole = config["model_type"] == "clip"
    vision = {"model_type": "clip_vision_model", **(config.get("vision_config") or {})} if whole else config
    return vision_config(vision, str(folder / "config.json"), *read_preprocessor(folder), feature_layer)


def check_original(config: Mapping[str, Any], where: str) -> None:
    """Check the keys that LLaVA's own layout adds to Llama's.

    Raises:
      UserError: one of them asks for something that the model code does not do.
    """
    fields.Fields(config, where).only(
        mm_projector_type=("mlp2x_gelu", "linear"),
        mm_vision_select_feature=("patch",),
        mm_use_im_start_end=(False,),
        mm_use_im_patch_token=(False,),
        mm_patch_merge_type=("flat",),
        image_aspect_ratio=("pad", "square", None),
        tokenizer_padding_side=("right", "left"),
    )


def hf_config(config: Mapping[str, Any], folder: pathlib.Path) -> tuple[model_config.LlavaConfig, int]:
    """A llava-hf config; returns (config with the true vocabulary, rows of embedding and head in the files).

    The hub's checkpoints put `<image>` = V and `<pad>` = V + 1 behind the vocabulary and pad the rows to `padded` ones.

    Raises:
      UserError: a setting that is not supported.
    """
    where = str(folder / "config.json")
    found = fields.Fields(config, where)
    found.only(
        vision_feature_select_strategy=("default",), projector_hidden_act=("gelu",), multimodal_projector_bias=(True,)
    )
    text = text_config({"model_type": "llama", **found.part("text_config").values}, where)
    text = dataclasses.replace(text, tie_embeddings=text.tie_embeddings or found.flag("tie_word_embeddings"))
    stored = text.vocab_size
    _check_image_id(config, stored, where)
    vision = {"model_type": "clip_vision_model", **(found.part("vision_config").values or _HF_DEFAULT_VISION)}
    tower = vision_config(vision, where, *read_preprocessor(folder), config.get("vision_feature_layer", -2))
    text = dataclasses.replace(text, vocab_size=true_vocab(config, stored))
    return model_config.LlavaConfig(text=text, vision=tower, projector="mlp2x_gelu"), stored


def _check_image_id(config: Mapping[str, Any], stored: int, where: str) -> None:
    named = image_id(config)
    if named is not None and (type(named) is not int or not 0 <= named <= stored):
        raise errors.UserError(
            f"{where}: image_token_index={errors.short(named)} does not fit a vocab_size of {stored:,}: correct it"
        )


def image_id(config: Mapping[str, Any]) -> Any:
    """The id of `<image>` in a llava-hf config, by either of its names; None where it names none."""
    named = config.get("image_token_index")
    return config.get("image_token_id") if named is None else named


def true_vocab(config: Mapping[str, Any], stored: int) -> int:
    """Rows of the model before llava-hf added some: recorded where this program wrote the folder, else out of the
    ids."""
    recorded = (config.get(checkpoint.PROVENANCE) or {}).get(checkpoint.VOCAB_SIZE)
    if type(recorded) is int and 0 < recorded <= stored:
        return recorded
    image = image_id(config)
    image = DEFAULT_IMAGE_ID if image is None else image
    return image if stored % VOCAB_MULTIPLE == 0 and 2 <= stored - image < VOCAB_MULTIPLE + 2 else stored


def padded(rows: int) -> int:
    """The next multiple of 64, as llava-hf stores them."""
    return -(-rows // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
