"""A model as an Orbax folder (`convert --to orbax`): arrays/, checkpoint.json and the tokenizer's files."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import format_v1
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.models import config as model_config

RECORD = "checkpoint.json"
_ARRAYS = "arrays"


def is_export(folder: pathlib.Path) -> bool:
    """True if the folder was written by `save_export`."""
    return (folder / RECORD).is_file()


def save_export(model: checkpoint.Checkpoint, folder: pathlib.Path) -> None:
    """Write the model into an existing empty folder."""
    import orbax.checkpoint as ocp

    extras = {k: v for k, v in model.extras.items() if k not in ("padding", "note")}
    flat = trees.flatten(model.params)
    record = {
        **format_v1.header(),
        "kind": "model",
        "config": dataclasses.asdict(model.config),
        "lora": dataclasses.asdict(model.lora) if model.lora else None,
        "weights_sha256": model.weights_sha256 or checkpoint.fingerprint(model.params),
        "base": dataclasses.asdict(model.base) if model.base else None,
        "arrays": {path: checkpoint.digest(path, np.ascontiguousarray(value)) for path, value in flat.items()},
        "extras": extras,
    }
    tree = {"params": model.params, "padding": trees.unflatten(model.extras.get("padding", {}))}
    with ocp.StandardCheckpointer() as writer:
        writer.save((folder / _ARRAYS).absolute(), {k: v for k, v in tree.items() if v})
        writer.wait_until_finished()
    tokenizer_files.copy(model.tokenizer_folder, folder)
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_record(folder: pathlib.Path) -> dict[str, Any]:
    """The checked record of an exported model.

    Raises:
      UserError: broken record, another format version, or an id without a row (vocabulary.py).
    """
    record = files.read_object(folder / RECORD)
    format_v1.check_header(record, str(folder / RECORD))
    if record.get("kind") != "model":
        raise errors.UserError(f"{folder / RECORD}: kind is {record.get('kind')!r}, an exported model was expected")
    vocabulary.check(folder, record["config"]["text"]["vocab_size"], record["extras"])
    return record


def sizes(record: Mapping[str, Any]) -> tuple[model_config.LlavaConfig, model_config.LoraConfig | None]:
    """Model and adapter configuration out of a record."""
    c, lora = record["config"], record["lora"]
    scaling = c["text"]["rope_scaling"]
    text = model_config.TextConfig(**{**c["text"], "rope_scaling": model_config.RopeScaling(**scaling) if scaling else None})
    vision = None
    if c["vision"]:
        constants = {k: tuple(c["vision"][k]) for k in ("image_mean", "image_std")}
        vision = model_config.VisionConfig(**{**c["vision"], **constants})
    adapters = model_config.LoraConfig(**{**lora, "targets": tuple(lora["targets"])}) if lora else None
    return model_config.LlavaConfig(text, vision, c["projector"]), adapters


def load_export(folder: pathlib.Path, dtype: np.dtype | type | None = None) -> checkpoint.Checkpoint:
    """Load an exported model; every array is checked against its recorded hash.

    Raises:
      UserError: damaged arrays or record, or another format version.
    """
    import orbax.checkpoint as ocp

    record = read_record(folder)
    config, lora = sizes(record)
    try:
        reader = ocp.PyTreeCheckpointer()
        stored = reader.metadata((folder / _ARRAYS).absolute()).item_metadata.tree
        # As numpy arrays, so that the devices of the machine that wrote them do not matter.
        as_numpy = {path: ocp.RestoreArgs(restore_type=np.ndarray) for path in trees.flatten(stored)}
        tree = reader.restore((folder / _ARRAYS).absolute(), restore_args=trees.unflatten(as_numpy))
    except (ValueError, OSError, KeyError, AttributeError) as e:
        raise errors.UserError(f"{folder / _ARRAYS}: damaged, export the model again: {e}") from e
    flat = {path: np.asarray(value) for path, value in trees.flatten(tree["params"]).items()}
    expected = layouts.tree_shapes(config, lora)
    for path in sorted(record["arrays"].keys() | flat.keys() | expected.keys()):
        if path not in flat or path not in expected or checkpoint.digest(path, flat[path]) != record["arrays"].get(path):
            raise errors.UserError(f"{folder / _ARRAYS}: array {path} is not what {RECORD} says; export the model again")
    if dtype is not None:
        flat = {path: value.astype(dtype, copy=False) for path, value in flat.items()}
    # The base by its name, unless adapters were merged into it or its numbers were changed since.
    base = checkpoint.Base(**record["base"]) if record.get("base") else None
    if base and base.sha256 != checkpoint.base_fingerprint(record["arrays"]):
        base = None
    extras = dict(record["extras"])
    if "padding" in tree:
        extras["padding"] = {path: np.asarray(value) for path, value in trees.flatten(tree["padding"]).items()}
    params = trees.unflatten(flat)
    return checkpoint.Checkpoint(config, params, lora, folder, record["weights_sha256"], "orbax", base, extras)
