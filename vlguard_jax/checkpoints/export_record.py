"""checkpoint.json of an exported model: who gets a folder from others believes nothing in it that was not looked at
here."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
import pathlib
import re
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import format_v1
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.models import config as model_config

RECORD = "checkpoint.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EXTRAS: dict[str, Any] = {  # what `checkpoint.Checkpoint.extras` may hold here, "padding" and "note" apart
    **dict.fromkeys(("config", "generation_config", "adapter_config", "provenance"), dict),
    "preprocessor": dict | None,
    **dict.fromkeys(("kind", "vision_tower", "source"), str),
}


@dataclasses.dataclass(frozen=True)
class Record:
    """What an exported model says of itself.

    arrays: {tree path: digest}, of exactly the arrays that `config` and `lora` ask for. weights_sha256: made of them.
    """

    config: model_config.LlavaConfig
    lora: model_config.LoraConfig | None
    arrays: Mapping[str, str]
    weights_sha256: str
    base: checkpoint.Base | None
    extras: Mapping[str, Any]
    format_version: int


def read(folder: pathlib.Path) -> Record:
    """The record of an exported model.

    Raises:
      UserError: broken, another format version, a value of another type or out of range, arrays or a hash that do not
        fit the rest, or an id without a row (vocabulary.py).
    """
    where = str(folder / RECORD)
    record = files.read_object(where)
    format_v1.check_header(record, where)
    if record.get("kind") != "model":
        raise errors.UserError(f"{where}: kind is {errors.short(record.get('kind'))}, an exported model was expected")
    found = fields.Fields(record, where)
    config, lora = _sizes(found.part("config")), _lora(found.part("lora")) if record.get("lora") is not None else None
    arrays, shapes = found.part("arrays").values, layouts.tree_shapes(config, lora)
    if sum(map(math.prod, shapes.values())) > limits.PARAMETERS:
        raise errors.UserError(f"{where}: a model of more than {limits.PARAMETERS:,} parameters; get the folder again")
    for path in sorted(arrays.keys() ^ shapes.keys()):
        how = "is missing in its arrays" if path in shapes else "is none of a model of its sizes"
        raise errors.UserError(f"{where}: array {errors.short(path)} {how}; export the model again")
    for path, digest in arrays.items():
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise errors.UserError(f"{where}: the hash of {path} is {errors.short(digest)}; get the folder again")
    sha256 = found.text("weights_sha256")
    if sha256 != checkpoint.combine(arrays):
        raise errors.UserError(
            f"{where}: weights_sha256 {errors.short(sha256)} is not that of its arrays; export the model again"
        )
    extras = _extras(found.part("extras"))
    vocabulary.check(folder, config.text.vocab_size, extras)
    return Record(config, lora, arrays, sha256, _base(found.part("base")), extras, record["format_version"])


def _sizes(found: fields.Fields) -> model_config.LlavaConfig:
    _only(found, model_config.LlavaConfig)
    vision = _vision(found.part("vision")) if found.values.get("vision") is not None else None
    found.only(projector=("mlp2x_gelu", "linear") if vision else (None,))
    return model_config.LlavaConfig(_text(found.part("text")), vision, found.values.get("projector"))


def _text(found: fields.Fields) -> model_config.TextConfig:
    _only(found, model_config.TextConfig)
    sizes = {
        key: found.size(key) for key in ("vocab_size", "width", "num_heads", "num_kv_heads", "head_width", "mlp_width")
    }
    if sizes["num_heads"] % sizes["num_kv_heads"] or sizes["head_width"] % 2:
        raise errors.UserError(
            f"{found.where}: num_heads, num_kv_heads and head_width of its text model do not fit together"
        )
    return model_config.TextConfig(
        **sizes,
        num_layers=found.size("num_layers", most=limits.LAYERS),
        norm_eps=found.number("norm_eps", most=1.0),
        rope_theta=found.number("rope_theta", least=1.0),
        rope_scaling=_scaling(found.part("rope_scaling")) if found.values.get("rope_scaling") is not None else None,
        tie_embeddings=found.flag("tie_embeddings"),
    )


def _scaling(found: fields.Fields) -> model_config.RopeScaling:
    _only(found, model_config.RopeScaling)
    found.only(kind=("linear", "llama3"))
    low, high = found.number("low_freq_factor", 1.0), found.number("high_freq_factor", 4.0)
    if low >= high:
        raise found.wrong("low_freq_factor", "below high_freq_factor")
    positions = found.size("original_max_position", 8192, most=limits.POSITIONS)
    return model_config.RopeScaling(found.text("kind"), found.number("factor"), low, high, positions)


def _vision(found: fields.Fields) -> model_config.VisionConfig:
    _only(found, model_config.VisionConfig)
    found.only(activation=("quick_gelu", "gelu"))
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
    mean = found.numbers("image_mean", model_config.CLIP_MEAN, least=-most, most=most)
    std = found.numbers("image_std", model_config.CLIP_STD, least=1 / most, most=most)
    return model_config.VisionConfig(
        **sides,
        **sizes,
        num_layers=layers,
        norm_eps=found.number("norm_eps", most=1.0),
        activation=found.text("activation"),
        feature_layer=layer,
        image_mean=(mean[0], mean[1], mean[2]),
        image_std=(std[0], std[1], std[2]),
    )


def _lora(found: fields.Fields) -> model_config.LoraConfig:
    _only(found, model_config.LoraConfig)
    targets = found.values.get("targets")
    if (
        not isinstance(targets, list)
        or not targets
        or not all(isinstance(t, str) and t in layouts.LINEARS for t in targets)
    ):
        raise found.wrong("targets", f"a list out of {', '.join(layouts.LINEARS)}")
    dropout = found.number("dropout", least=0.0, most=1.0)
    if dropout == 1:
        raise found.wrong("dropout", "below 1")
    return model_config.LoraConfig(found.size("rank"), found.number("alpha"), dropout, tuple(targets))


def _base(found: fields.Fields) -> checkpoint.Base | None:
    if not found.values:
        return None
    _only(found, checkpoint.Base)
    return checkpoint.Base(found.text("name"), found.text("layout"), found.text("sha256"))


def _extras(found: fields.Fields) -> dict[str, Any]:
    for key, value in found.values.items():
        if key not in _EXTRAS or not isinstance(value, _EXTRAS[key]):
            raise errors.UserError(
                f"{found.where}: extras: {errors.short(key)} is {files.kind(value)}; export the model again"
            )
        if isinstance(value, str):
            found.text(key)
    for part in ("text_config", "vision_config", checkpoint.PROVENANCE):
        found.part("config").part(part)
    found.part("provenance").flag("stand_in")
    return dict(found.values)


def _only(found: fields.Fields, kind: type) -> None:
    """Raise UserError for a key that the dataclass `kind` does not have."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in found.values:
        if key not in known:
            raise errors.UserError(f"{found.where}: {errors.short(key)} is unknown{errors.nearest(key, known)}")
