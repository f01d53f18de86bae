"""`config.json` of LLaVA-1.5, read and written: LLaVA's own layout (llava/train/train.py) and llava-hf (transformers'
LlavaConfig, 4.36 to 5.x).

A setting that the model code does not have is an error that names key and file, never a silent difference.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import family
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import added_tokens
from vlguard_jax.families.llava import config as llava_config

MODEL_TYPES = ("llava", "llava_llama", "llava_mistral")
OPENAI_TOWER = "openai/clip-vit-large-patch14-336"
VOCAB_MULTIPLE = 64  # llava-hf pads the rows of embedding and head to this
DEFAULT_IMAGE_ID = 32000  # LlavaConfig's

# The meaning of a llava-hf config without vision_config.
_HF_DEFAULT_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


def kind(config: Mapping[str, Any]) -> str:
    """ "llava" (its own layout), "llava-hf", or "" for another model's config."""
    if config.get("model_type") not in MODEL_TYPES or tiled(config):
        return ""
    return "llava-hf" if "text_config" in config or "vision_config" in config else "llava"


def tiled(config: Mapping[str, Any]) -> bool:
    """Whether a config in LLaVA's own layout is of a later model of the same line, which splits pictures into tiles."""
    tiles = {"mm_patch_merge_type": "spatial", "image_aspect_ratio": "anyres"}
    return config.get("model_type") in MODEL_TYPES and any(
        str(config.get(key)).startswith(value) for key, value in tiles.items()
    )


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


def read_original(
    config: Mapping[str, Any], where: str, text: configs.TextConfig, vision: configs.VisionConfig
) -> llava_config.LlavaConfig:
    """Sizes from a config that `check_original` has checked."""
    return llava_config.LlavaConfig(text, vision, fields.Fields(config, where).text("mm_projector_type", "linear"))


def read_hf(config: Mapping[str, Any], folder: pathlib.Path) -> tuple[llava_config.LlavaConfig, int]:
    """A llava-hf config; returns (config with the true vocabulary, rows of embedding and head in the files).

    The hub's checkpoints put `<image>` = V and `<pad>` = V + 1 after the vocabulary and pad the rows as in `padded`.

    Raises:
      UserError: a setting that is not supported.
    """
    where = str(folder / "config.json")
    found = fields.Fields(config, where)
    found.only(
        vision_feature_select_strategy=("default",), projector_hidden_act=("gelu",), multimodal_projector_bias=(True,)
    )
    text = config_json.text_config({"model_type": "llama", **found.part("text_config").values}, where)
    text = dataclasses.replace(text, tie_embeddings=text.tie_embeddings or found.flag("tie_word_embeddings"))
    stored = text.vocab_size
    _check_image_id(config, stored, where)
    vision = {"model_type": "clip_vision_model", **(found.part("vision_config").values or _HF_DEFAULT_VISION)}
    tower = config_json.vision_config(
        vision, where, *config_json.read_preprocessor(folder), config.get("vision_feature_layer", -2)
    )
    text = dataclasses.replace(text, vocab_size=true_vocab(config, stored))
    return llava_config.LlavaConfig(text=text, vision=tower, projector="mlp2x_gelu"), stored


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
    """Rows of the model before llava-hf added some: recorded if this program wrote the folder, else derived from the
    ids."""
    recorded = (config.get(family.PROVENANCE) or {}).get(family.VOCAB_SIZE)
    if type(recorded) is int and 0 < recorded <= stored:
        return recorded
    image = image_id(config)
    image = DEFAULT_IMAGE_ID if image is None else image
    return image if stored % VOCAB_MULTIPLE == 0 and 2 <= stored - image < VOCAB_MULTIPLE + 2 else stored


def padded(rows: int) -> int:
    """The next multiple of 64, as llava-hf stores them."""
    return -(-rows // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def _tower_name(config: llava_config.LlavaConfig, extras: extras_lib.Extras) -> str:
    """The vision tower's name for `mm_vision_tower`."""
    original = extras.get("config", {}).get("mm_vision_tower") or extras.get("vision_tower")
    if original:
        return str(original)
    known = config_json.vision_json(configs.CLIP_VIT_L_14_336)
    return OPENAI_TOWER if config_json.vision_json(config.vision) == known else family.OWN_TOWER


def write_original(config: llava_config.LlavaConfig, extras: extras_lib.Extras, dtype: str) -> dict[str, Any]:
    """`config.json` of LLaVA's own layout."""
    if extras.get("kind") == "llava":
        return {**extras["config"], "torch_dtype": dtype}
    return config_json.text_json(config.text, extras) | {
        "architectures": [f"Llava{config.text.architecture.title()}ForCausalLM"],
        "model_type": f"llava_{config.text.architecture}",
        "mm_vision_tower": _tower_name(config, extras),
        "mm_hidden_size": config.vision.width,
        "mm_vision_select_layer": config.vision.feature_layer,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": config.projector,
        "mm_patch_merge_type": "flat",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "unfreeze_mm_vision_tower": False,
        "image_aspect_ratio": "pad",
        "tokenizer_padding_side": "right",
        "torch_dtype": dtype,
    }


def write_hf(
    config: llava_config.LlavaConfig, extras: extras_lib.Extras, dtype: str, tokens: added_tokens.HfTokens
) -> dict[str, Any]:
    """`config.json` of the llava-hf layout with these added tokens."""
    if extras.get("kind") == "llava-hf":
        made = _same_hf_json(extras["config"], dtype, tokens)
    else:
        made = _new_hf_json(config, extras, dtype, tokens)
    own = dict(extras.get("provenance") or {})
    if true_vocab(made, made["text_config"]["vocab_size"]) != config.text.vocab_size:
        own[family.VOCAB_SIZE] = config.text.vocab_size
    return made | ({family.PROVENANCE: own} if own else {})


def _same_hf_json(before: Mapping[str, Any], dtype: str, tokens: added_tokens.HfTokens) -> dict[str, Any]:
    """The model's original config, changed where type, ids or rows differ."""
    image, pad = image_id(before), before.get("pad_token_id")
    image = DEFAULT_IMAGE_ID if image is None else image
    if tokens.records:
        image, pad = tokens.image, tokens.pad
    # Sections may have their own type (5.x: `dtype`), which would override the top level's.
    parts = {k: _retyped(before[k], dtype) for k in ("text_config", "vision_config") if before.get(k)}
    text = {"model_type": "llama", "vocab_size": 32000, **parts.get("text_config", {})}
    if tokens.records and tokens.rows > text["vocab_size"]:
        text["vocab_size"] = padded(tokens.rows)
    if text.get("pad_token_id") is not None:
        text["pad_token_id"] = pad
    whole = {"image_token_index": image, "pad_token_id": pad, "vocab_size": text["vocab_size"]}
    dropped = ("image_token_id", family.PROVENANCE)
    kept = {k: v for k, v in before.items() if k not in dropped}
    return _retyped(kept | parts | {"text_config": text} | whole, dtype)


def _new_hf_json(
    config: llava_config.LlavaConfig, extras: extras_lib.Extras, dtype: str, tokens: added_tokens.HfTokens
) -> dict[str, Any]:
    text = config_json.language_json(config.text, extras, dtype)
    rows = padded(max(config.text.vocab_size, tokens.rows))
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "ignore_index": -100,
        "image_token_index": tokens.image,
        "pad_token_id": tokens.pad,
        "vocab_size": rows,
        "image_seq_length": config.vision.num_patches,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": config.vision.feature_layer,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": config.text.tie_embeddings,
        "text_config": {**text, "vocab_size": rows},
        "vision_config": {**config_json.vision_json(config.vision), "torch_dtype": dtype},
        "torch_dtype": dtype,
    }


def _retyped(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k != "dtype"} | {"torch_dtype": dtype}


def processors(config: llava_config.LlavaConfig, extras: extras_lib.Extras) -> dict[str, dict[str, Any]]:
    """The files of a LlavaProcessor."""
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": config.vision.patch_size,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
    }
    pictures = config_json.preprocessor_json(config.vision, extras)
    return {"preprocessor_config.json": pictures, "processor_config.json": processor}
