"""The shared blocks' parts of `config.json`, read and written. Keys and defaults: transformers' LlamaConfig,
MistralConfig and CLIPVisionConfig (4.36 to 5.x).

A setting that the blocks do not have is an error that names key and file, never a silent difference.
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families.blocks import configs

_MODEL_TYPES = ("llama", "mistral", "llava", "llava_llama", "llava_mistral")
_MODELS = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}
_CARRIED = (
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
    "initializer_range",
    "attention_dropout",
    "use_cache",
)


def text_config(config: Mapping[str, Any], where: str) -> configs.TextConfig:
    """A Llama or Mistral config; missing keys have the defaults of LlamaConfig or MistralConfig.

    Raises:
      UserError: a setting that is not supported or makes no sense; `where` names the file.
    """
    found = fields.Fields(config, where)
    found.only(model_type=_MODEL_TYPES, hidden_act=("silu",), attention_bias=(False,), mlp_bias=(False,))
    mistral = _mistral(found)
    if mistral:
        _check_window(found)
    width, heads = found.size("hidden_size", 4096), found.size("num_attention_heads", 32)
    groups = 8 if mistral and "num_key_value_heads" not in config else heads
    kv_heads, head_width = found.size("num_key_value_heads", groups), found.size("head_dim", max(1, width // heads))
    if heads % kv_heads or head_width % 2 or (config.get("head_dim") is None and width % heads):
        raise errors.UserError(
            f"{where}: hidden_size={width}, num_attention_heads={heads}, num_key_value_heads={kv_heads} do not"
            " fit together"
        )
    theta, scaling = rope(config, where)
    return configs.TextConfig(
        vocab_size=found.size("vocab_size", 32000),
        width=width,
        num_layers=found.size("num_hidden_layers", 32, most=limits.LAYERS),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_width=head_width,
        mlp_width=found.size("intermediate_size", 14336 if mistral else 11008),
        norm_eps=found.number("rms_norm_eps", 1e-6, most=1.0),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=found.flag("tie_word_embeddings"),
        architecture="mistral" if mistral else "llama",
    )


def _mistral(found: fields.Fields) -> bool:
    return found.text("model_type", "llama").endswith("mistral")


def positions(found: fields.Fields) -> int:
    """Positions that a decoder was made for; where its config names none, the default of its kind."""
    default = 131072 if _mistral(found) else 2048
    return found.size("max_position_embeddings", default, most=limits.POSITIONS)


def _check_window(found: fields.Fields) -> None:
    """Refuse attention that sees only some of the tokens before; as in MistralConfig, a missing key is not null."""
    if "sliding_window" in found.values and found.values["sliding_window"] is None:
        return
    window = found.size("sliding_window", 4096, most=limits.POSITIONS)
    if window < (longest := positions(found)):
        raise errors.UserError(
            f"{found.where}: sliding_window={window} is shorter than max_position_embeddings={longest}, and attention"
            f" within a window is not supported: write {window} for both, with which longer conversations are refused"
        )


def rope(config: Mapping[str, Any], where: str) -> tuple[float, configs.RopeScaling | None]:
    """Rope base and scaling from `rope_parameters` (5.x) or `rope_theta` and `rope_scaling` (4.x), which counts where
    both are there, as in transformers.

    Raises:
      UserError: another kind of scaling, or a number that is missing, not finite or not positive.
    """
    whole = fields.Fields(config, where)
    new, old = whole.part("rope_parameters"), whole.part("rope_scaling")
    scaling = old if old.values else new
    if any(key.endswith("_attention") for key in scaling.values):
        raise errors.UserError(f"{where}: rope_parameters for each kind of layer are not supported (only one for all)")
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
        return theta, configs.RopeScaling("linear", factor)
    low, high = (scaling.number(f"{which}_freq_factor", of=settings) for which in ("low", "high"))
    if low >= high:
        raise errors.UserError(f"{where}: low_freq_factor={low:g} must be below high_freq_factor={high:g}")
    positions = scaling.size("original_max_position_embeddings", most=limits.POSITIONS)
    return theta, configs.RopeScaling("llama3", factor, low, high, positions)


def vision_config(
    config: Mapping[str, Any],
    where: str,
    preprocessor: Mapping[str, Any] | None,
    preprocessor_where: str,
    feature_layer: object = -2,
) -> configs.VisionConfig:
    """A CLIP vision config (the `vision_config` of a CLIPModel, or a CLIPVisionModel's own) with its preprocessor's
    constants; missing keys have CLIPVisionConfig's defaults.

    Raises:
      UserError: another tower, an unsupported activation, or a preprocessor that differs from LLaVA's.
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
            f" num_attention_heads={heads}, do not fit together"
        )
    if type(feature_layer) is not int or not -num_layers - 1 <= feature_layer <= num_layers:
        raise errors.UserError(
            f"{where}: feature layer {errors.short(feature_layer)} is not one of the tower's {num_layers} layers"
        )
    mean, std = _pixel_constants(fields.Fields(preprocessor or {}, preprocessor_where), image_size)
    return configs.VisionConfig(
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
    mean = found.numbers("image_mean", configs.CLIP_MEAN, least=-most, most=most)
    return mean, found.numbers("image_std", configs.CLIP_STD, least=1 / most, most=most)


def read_preprocessor(folder: pathlib.Path) -> tuple[dict[str, Any] | None, str]:
    """(image settings of a folder, their file); (None, "") without any."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return files.read_object(path), str(path)
    path = folder / "processor_config.json"  # transformers 5.x keeps them here
    if path.is_file() and (found := files.read_object(path)).get("image_processor") is not None:
        return dict(fields.Fields(found, str(path)).part("image_processor").values), str(path)
    return None, ""


def known(extras: extras_lib.Extras, key: str) -> Any:
    """A value of the original files, wherever their layout keeps it; None if it is nowhere."""
    config = extras.get("config", {})
    for place in (config.get("text_config") or {}, config, extras.get("generation_config", {})):
        if place.get(key) is not None:
            return place[key]
    return None


def text_json(t: configs.TextConfig, extras: extras_lib.Extras) -> dict[str, Any]:
    """A LlamaConfig or MistralConfig with every size written out."""
    scaling = None
    if t.rope_scaling:
        scaling = {"type": t.rope_scaling.kind, "rope_type": t.rope_scaling.kind, "factor": t.rope_scaling.factor}
        if t.rope_scaling.kind == "llama3":
            scaling["low_freq_factor"] = t.rope_scaling.low_freq_factor
            scaling["high_freq_factor"] = t.rope_scaling.high_freq_factor
            scaling["original_max_position_embeddings"] = t.rope_scaling.original_max_position
    carried = {key: value for key in _CARRIED if (value := known(extras, key)) is not None}
    return carried | {
        "vocab_size": t.vocab_size,
        "hidden_size": t.width,
        "intermediate_size": t.mlp_width,
        "num_hidden_layers": t.num_layers,
        "num_attention_heads": t.num_heads,
        "num_key_value_heads": t.num_kv_heads,
        "head_dim": t.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": t.norm_eps,
        "rope_theta": t.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": t.tie_embeddings,
        **({"sliding_window": None} if t.architecture == "mistral" else {"attention_bias": False, "mlp_bias": False}),
    }


def language_json(t: configs.TextConfig, extras: extras_lib.Extras, dtype: str) -> dict[str, Any]:
    """`config.json` of a language model by itself."""
    whole = {"architectures": [_MODELS[t.architecture]], "model_type": t.architecture}
    return {**whole, **text_json(t, extras), "torch_dtype": dtype}


def vision_json(v: configs.VisionConfig) -> dict[str, Any]:
    """A CLIPVisionConfig with every size written out."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": v.width,
        "intermediate_size": v.mlp_width,
        "num_hidden_layers": v.num_layers,
        "num_attention_heads": v.num_heads,
        "image_size": v.image_size,
        "patch_size": v.patch_size,
        "hidden_act": v.activation,
        "layer_norm_eps": v.norm_eps,
    }


def preprocessor_json(v: configs.VisionConfig, extras: extras_lib.Extras) -> dict[str, Any]:
    """A CLIPImageProcessor's settings."""
    original = extras.get("preprocessor") or {}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": v.image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": v.image_size, "width": v.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(v.image_mean),
        "image_std": list(v.image_std),
        "do_convert_rgb": True,
        **original,
    }
