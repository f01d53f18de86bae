"""Sizes in the record of an Orbax folder: every value is checked, since the folder may come from others."""

from __future__ import annotations

import dataclasses

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import limits
from vlguard_jax.families.blocks import configs


def text(found: fields.Fields) -> configs.TextConfig:
    """A decoder's sizes. Like all functions here, raises UserError for an unknown key or a value out of its range."""
    only(found, configs.TextConfig)
    sizes = {
        key: found.size(key) for key in ("vocab_size", "width", "num_heads", "num_kv_heads", "head_width", "mlp_width")
    }
    if sizes["num_heads"] % sizes["num_kv_heads"] or sizes["head_width"] % 2:
        raise errors.UserError(
            f"{found.where}: num_heads, num_kv_heads and head_width of its text model do not fit together"
        )
    found.only(architecture=configs.ARCHITECTURES)
    return configs.TextConfig(
        **sizes,
        num_layers=found.size("num_layers", most=limits.LAYERS),
        norm_eps=found.number("norm_eps", most=1.0),
        rope_theta=found.number("rope_theta", least=1.0),
        rope_scaling=_scaling(found.part("rope_scaling")) if found.values.get("rope_scaling") is not None else None,
        tie_embeddings=found.flag("tie_embeddings"),
        architecture=found.text("architecture", "llama"),
    )


def _scaling(found: fields.Fields) -> configs.RopeScaling:
    only(found, configs.RopeScaling)
    low, high = found.number("low_freq_factor", 1.0), found.number("high_freq_factor", 4.0)
    if low >= high:
        raise found.wrong("low_freq_factor", "below high_freq_factor")
    positions = found.size("original_max_position", 8192, most=limits.POSITIONS)
    return configs.RopeScaling(found.choice("kind", "linear", "llama3"), found.number("factor"), low, high, positions)


def vision(found: fields.Fields) -> configs.VisionConfig:
    """A tower's sizes."""
    only(found, configs.VisionConfig)
    sides = {key: found.size(key, most=limits.SIDE) for key in ("image_size", "patch_size")}
    sizes = {key: found.size(key) for key in ("width", "num_heads", "mlp_width")}
    if sides["patch_size"] > sides["image_size"] or sizes["width"] % sizes["num_heads"]:
        raise errors.UserError(
            f"{found.where}: image_size and patch_size, or width and num_heads, of its tower do not fit together"
        )
    layers, layer, most = (
        found.size("num_layers", most=limits.LAYERS),
        found.values.get("feature_layer"),
        limits.CHANNEL_SCALE,
    )
    if type(layer) is not int or not -layers - 1 <= layer <= layers:
        raise found.wrong("feature_layer", f"one of the tower's {layers} layers")
    mean = found.numbers("image_mean", configs.CLIP_MEAN, least=-most, most=most)
    std = found.numbers("image_std", configs.CLIP_STD, least=1 / most, most=most)
    return configs.VisionConfig(
        **sides,
        **sizes,
        num_layers=layers,
        norm_eps=found.number("norm_eps", most=1.0),
        activation=found.choice("activation", "quick_gelu", "gelu"),
        feature_layer=layer,
        image_mean=(mean[0], mean[1], mean[2]),
        image_std=(std[0], std[1], std[2]),
    )


def lora(found: fields.Fields) -> configs.LoraConfig:
    """The settings of adapters."""
    only(found, configs.LoraConfig)
    targets = found.values.get("targets")
    if (
        not isinstance(targets, list)
        or not targets
        or not all(isinstance(t, str) and t in configs.LINEARS for t in targets)
    ):
        raise found.wrong("targets", f"a list out of {', '.join(configs.LINEARS)}")
    dropout = found.number("dropout", least=0.0, most=1.0)
    if dropout == 1:
        raise found.wrong("dropout", "below 1")
    return configs.LoraConfig(found.size("rank"), found.number("alpha"), dropout, tuple(targets))


def only(found: fields.Fields, kind: type) -> None:
    """Raise UserError for a key that the dataclass `kind` does not have."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in found.values:
        if key not in known:
            raise errors.UserError(f"{found.where}: {errors.short(key)} is unknown{errors.nearest(key, known)}")
