"""Sizes of the model that a config names, without reading or fetching a weight."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import family
from vlguard_jax.families import table

SHORT = {name.rsplit("-", 1)[-1]: name for name in table.PRESETS}  # "7b" -> "llava-v1.5-7b"


@dataclasses.dataclass(frozen=True)
class Named:
    """A model's sizes, its name in tables, and how they were found. folder: None where the model is not on this
    machine."""

    config: family.Config
    name: str
    note: str
    folder: pathlib.Path | None = None


def resolve(model: config.ModelSettings, preset: str = "") -> Named:
    """The model of a config. preset: "7b", "13b" or a name of models/config.py, in place of `config.model`.

    Raises:
      UserError: no such preset; the folder holds no model; or the sizes of a hub id cannot be told from its name.
    """
    if preset:
        name = SHORT.get(preset.lower(), preset)
        if name not in table.PRESETS:
            raise errors.UserError(f"--model={preset} is unknown{errors.nearest(preset, (*SHORT, *table.PRESETS))}")
        return Named(table.PRESETS[name], name, f"sizes of {name}, by --model")
    if not model.path:
        raise errors.UserError(
            f"config.model.path is empty: name a checkpoint folder, or the sizes with --model={'|'.join(SHORT)}"
        )
    folder = pathlib.Path(os.path.expanduser(model.path))
    if folder.is_dir():
        return Named(_sizes(folder, model), folder.name, f"sizes of {model.path}", folder)
    last = re.split(r"[@/]", model.path)[1] if "/" in model.path else model.path
    found = [name for short, name in SHORT.items() if re.search(rf"(?<![\d.]){short}(?![a-z0-9])", last.lower())]
    if len(found) != 1:
        raise errors.UserError(
            f"{model.path}: not a folder here, and its name tells no size; download it, or name the sizes with"
            f" --model={'|'.join(SHORT)}"
        )
    return Named(
        table.PRESETS[found[0]],
        last,
        f"sizes of {found[0]}, after the name {model.path}; nothing was downloaded",
    )


def _sizes(folder: pathlib.Path, model: config.ModelSettings) -> family.Config:
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is loaded: a plan fetches no tower
    from vlguard_jax.checkpoints import export
    from vlguard_jax.checkpoints import export_record
    from vlguard_jax.checkpoints import sources

    if export.is_export(folder):
        return export_record.read(folder).config
    return sources.make_plan(folder, base=model.base, vision_tower=model.vision_tower, projector=model.projector).config
