"""`config.json` of every supported layout -> models.config, and back. Keys and defaults: transformers' LlamaConfig,
CLIPVisionConfig and LlavaConfig (4.36 to 5.x); LLaVA's additions: reference notes 13.

A setting that the model code does not have is an error that names key and file, never a silent difference.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.models import config as model_config

OPENAI_TOWER = "openai/clip-vit-large-patch14-336"
VOCAB_MULTIPLE = 64  # llava-hf pads the rows of embedding and head to this

_LLAMA_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
}
_CLIP_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
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
      UserError: missing or broken file, another model type.
    """
    path = folder / "config.json"
    config = files.read_object(path)
    model_type = config.get("model_type")
    if model_type in ("llava", "llava_llama"):
        return ("llava-hf" if "text_config" in config or "vision_config" in config else "llava"), config
    if model_type == "llama":
        return "llama", config
    if model_type in ("clip", "clip_vision_model"):
        return "clip", config
    raise errors.UserError(
        f"{path}: checkpoint of another model type: model_type is {model_type!r}; known: llava, llava_llama, llama, clip"
    )


def _require(config: Mapping[str, Any], where: str, **allowed: tuple[Any, ...]) -> None:
    for key, values in allowed.items():
        if config.get(key, values[0]) not in values:
            supported = " or ".join(repr(v) for v in values)
            raise errors.UserError(f"{where}: {key}={config[key]!r} is not supported (only {supported})")


def positive(config: Mapping[str, Any], key: str, where: str, kind: Any = int) -> Any:
    """The number under `key`; UserError, which names `where`, if it is none or not positive."""
    value: Any = config[key]
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or value <= 0:
        raise errors.UserError(f"{where}: {key}={value!r} must be a positive number")
    return kind(value)


def text_config(config: Mapping[str, Any], where: str) -> model_config.TextConfig:
    """A Llama config (keys left out have LlamaConfig's defaults).

    Raises:
      UserError: a setting that is not supported or makes no sense; `where` names the file.
    """
    _require(config, where, model_type=("llama", "llava", "llava_llama"), hidden_act=("silu",), attention_bias=(False,), mlp_bias=(False,))
    full = {**_LLAMA_DEFAULTS, **{k: v for k, v in config.items() if v is not None}}
    width, heads = positive(full, "hidden_size", where), positive(full, "num_attention_heads", where)
    full = {"num_key_value_heads": heads, "head_dim": width // heads, **full}
    kv_heads, head_width = positive(full, "num_key_value_heads", where), positive(full, "head_dim", where)
    if heads % kv_heads or head_width % 2 or ("head_dim" not in config and width % heads):
        raise errors.UserError(
            f"{where}: hidden_size={width}, num_attention_heads={heads}, num_key_value_heads={kv_heads} do not fit together"
        )
    theta, scaling = rope(full, where)
    return model_config.TextConfig(
        vocab_size=positive(full, "vocab_size", where),
        width=width,
        num_layers=positive(full, "num_hidden_layers", where),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_width=head_width,
        mlp_width=positive(full, "intermediate_size", where),
        norm_eps=positive(full, "rms_norm_eps", where, float),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=bool(full.get("tie_word_embeddings", False)),
    )


def rope(config: Mapping[str, Any], where: str) -> tuple[float, model_config.RopeScaling | None]:
    """Rope base and scaling from `rope_parameters` (5.x) or `rope_theta` and `rope_scaling` (4.x)."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0)) != 1.0:
        raise errors.UserError(f"{where}: partial_rotary_factor is not supported")
    try:
        if kind == "default":
            return theta, None
        if kind == "linear":
            return theta, model_config.RopeScaling("linear", float(rope["factor"]))
        if kind == "llama3":
            return theta, model_config.RopeScaling(
                kind="llama3",
                factor=float(rope["factor"]),
                low_freq_factor=float(rope["low_freq_factor"]),
                high_freq_factor=float(rope["high_freq_factor"]),
                original_max_position=int(rope["original_max_position_embeddings"]),
            )
    except KeyError as e:
        raise errors.UserError(f"{where}: {e.args[0]} is missing in the rope settings of type {kind}") from e
    raise errors.UserError(f"{where}: rope type {kind!r} is not supported (only default, linear, llama3)")


def vision_config(
    config: Mapping[str, Any], where: str, preprocessor: Mapping[str, Any] | None, preprocessor_where: str, feature_layer: object = -2
) -> model_config.VisionConfig:
    """A CLIP vision config (the `vision_config` of a CLIPModel, or a CLIPVisionModel's own) with its preprocessor's constants.

    Raises:
      UserError: another tower, unsupported activation, or a preprocessor that does something else than LLaVA's.
    """
    _require(config, where, model_type=("clip_vision_model",), hidden_act=("quick_gelu", "gelu"), num_channels=(3,))
    full = {**_CLIP_DEFAULTS, **{k: v for k, v in config.items() if v is not None}}
    image_size, num_layers = positive(full, "image_size", where), positive(full, "num_hidden_layers", where)
    if not isinstance(feature_layer, int) or not -num_layers - 1 <= feature_layer <= num_layers:
        raise errors.UserError(f"{where}: feature layer {feature_layer!r} is not one of the tower's {num_layers} layers")
    mean, std = _pixel_constants(preprocessor, preprocessor_where, image_size)
    return model_config.VisionConfig(
        image_size=image_size,
        patch_size=positive(full, "patch_size", where),
        width=positive(full, "hidden_size", where),
        num_layers=num_layers,
        num_heads=positive(full, "num_attention_heads", where),
        mlp_width=positive(full, "intermediate_size", where),
        norm_eps=positive(full, "layer_norm_eps", where, float),
        activation=full["hidden_act"],
        feature_layer=feature_layer,
        image_mean=mean,
        image_std=std,
    )


def _pixel_constants(preprocessor: Mapping[str, Any] | None, where: str, image_size: int) -> tuple[Any, Any]:
    if preprocessor is None:
        return model_config.CLIP_MEAN, model_config.CLIP_STD
    always = {f"do_{step}": (True, None) for step in ("resize", "center_crop", "normalize", "rescale", "convert_rgb")}
    _require(preprocessor, where, resample=(3, None), **always)
    if abs((preprocessor.get("rescale_factor") or 1 / 255) * 255 - 1) > 1e-6:
        raise errors.UserError(f"{where}: rescale_factor={preprocessor['rescale_factor']!r} is not supported (only 1/255)")
    crop, size = preprocessor.get("crop_size") or image_size, preprocessor.get("size") or image_size
    sides = set(crop.values()) if isinstance(crop, Mapping) else {crop}
    sides |= {size.get("shortest_edge", size.get("height"))} if isinstance(size, Mapping) else {size}
    if sides != {image_size}:
        raise errors.UserError(f"{where}: crop_size and size must be the tower's image_size, {image_size}, not {crop} and {size}")
    mean = tuple(float(x) for x in preprocessor.get("image_mean") or model_config.CLIP_MEAN)
    std = tuple(float(x) for x in preprocessor.get("image_std") or model_config.CLIP_STD)
    return mean, std


def read_preprocessor(folder: pathlib.Path) -> tuple[dict[str, Any] | None, str]:
    """The image settings of a folder and the file they stand in; (None, "") where it has none."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return files.read_object(path), str(path)
    path = folder / "processor_config.json"  # transformers 5.x keeps them here
    if path.is_file() and isinstance(found := files.read_object(path).get("image_processor"), dict):
        return found, str(path)
    return None, ""


def tower_config(folder: pathlib.Path, feature_layer: object = -2) -> model_config.VisionConfig:
    """The vision part of a CLIP folder (CLIPModel or CLIPVisionModel).

    Raises:
      UserError: not a CLIP folder, or see `vision_config`.
    """
    kind, config = read_config(folder)
    if kind != "clip":
        raise errors.UserError(f"{folder / 'config.json'}: checkpoint of another model type: a CLIP vision tower was expected")
    vision = {"model_type": "clip_vision_model", **config.get("vision_config", {})} if config["model_type"] == "clip" else config
    return vision_config(vision, str(folder / "config.json"), *read_preprocessor(folder), feature_layer)


def check_original(config: Mapping[str, Any], where: str) -> None:
    """Check the keys that LLaVA's own layout adds to Llama's.

    Raises:
      UserError: one of them asks for something that the model code does not do.
    """
    _require(
        config,
        where,
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

    The hub's checkpoints put `<image>` = V and `<pad>` = V + 1 behind the vocabulary and pad the rows to a multiple of 64.

    Raises:
      UserError: a setting that is not supported.
    """
    where = str(folder / "config.json")
    _require(config, where, vision_feature_select_strategy=("default",), projector_hidden_act=("gelu",), multimodal_projector_bias=(True,))
    text = text_config({"model_type": "llama", **(config.get("text_config") or {})}, where)
    text = dataclasses.replace(text, tie_embeddings=text.tie_embeddings or bool(config.get("tie_word_embeddings", False)))
    stored = text.vocab_size
    _check_image_id(config, stored, where)
    vision = {"model_type": "clip_vision_model", **(config.get("vision_config") or _HF_DEFAULT_VISION)}
    tower = vision_config(vision, where, *read_preprocessor(folder), config.get("vision_feature_layer", -2))
    text = dataclasses.replace(text, vocab_size=true_vocab(config, stored))
    return model_config.LlavaConfig(text=text, vision=tower, projector="mlp2x_gelu"), stored


def _check_image_id(config: Mapping[str, Any], stored: int, where: str) -> None:
    named = config.get("image_token_index", config.get("image_token_id"))
    if named is not None and (type(named) is not int or not 0 <= named <= stored):
        raise errors.UserError(f"{where}: image_token_index={errors.short(named)} does not fit a vocab_size of {stored:,}: correct it")


def true_vocab(config: Mapping[str, Any], stored: int) -> int:
    """Rows of the model before llava-hf added some: recorded where this program wrote the folder, else out of the ids."""
    recorded = (config.get(checkpoint.PROVENANCE) or {}).get(checkpoint.VOCAB_SIZE)
    if type(recorded) is int and 0 < recorded <= stored:
        return recorded
    image_id = int(config.get("image_token_index", config.get("image_token_id", 32000)))
    return image_id if stored % VOCAB_MULTIPLE == 0 and 2 <= stored - image_id < VOCAB_MULTIPLE + 2 else stored


def padded_vocab(vocab_size: int) -> int:
    """Rows that llava-hf stores for V tokens, `<image>` and `<pad>`."""
    return padded(vocab_size + 2)


def padded(rows: int) -> int:
    """The next multiple of 64."""
    return -(-rows // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def dtype_name(dtype: np.dtype) -> str:
    """The name that config files use: float32, float16 or bfloat16."""
    return np.dtype(dtype).name
