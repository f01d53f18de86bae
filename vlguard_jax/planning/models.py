"""Sizes of the model that a config names, without reading or downloading weights."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from typing import TYPE_CHECKING

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

if TYPE_CHECKING:
    from vlguard_jax.checkpoints import outline as outline_lib

SHORT = {name.rsplit("-", 1)[-1]: name for name in reversed(table.PRESETS)}  # "7b" -> the first of that size


@dataclasses.dataclass(frozen=True)
class Named:
    """A model's sizes, its name in tables, and how the sizes were found. outline: None where the model is not on this
    machine."""

    config: family.Config
    name: str
    note: str
    outline: outline_lib.Outline | None = None


def resolve(model: config.ModelSettings, preset: str = "") -> Named:
    """The model of a config. preset: "7b", "13b" or the name of a preset of a family, in place of `config.model`.

    Raises:
      UserError: no such preset; no model in the folder; or the name of a hub id does not tell its sizes.
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
        outline = _outline(folder, model)
        return Named(outline.config, folder.name, f"sizes of {model.path}", outline)
    last = model.path.split("@")[0].rstrip("/").rsplit("/", 1)[-1]  # of a hub id, or of a path on another machine
    found = _likest(last.lower(), model.family)
    if found is None:
        raise errors.UserError(
            f"{model.path}: not a folder here, and its name tells no size; download it, or name the sizes with"
            f" --model={'|'.join(SHORT)}"
        )
    return Named(
        table.PRESETS[found],
        last,
        f"sizes of {found}, after the name {model.path}; nothing was downloaded",
    )


def template(named: Named, model: config.ModelSettings) -> list[str]:
    """The chat template that the model is asked with, in words; nothing where it has no tokenizer here.

    Raises:
      UserError: as `choice.template`.
    """
    from vlguard_jax.checkpoints import tokenizer_files

    if named.outline is None or not tokenizer_files.has_tokenizer(named.outline.tokenizer_folder):
        return []
    words = tokenizer_lib.load_tokenizer(named.outline.tokenizer_folder)
    return [choice.told(choice.template(model.template, model.template_date, named.config, words))]


def _likest(name: str, wanted: str) -> str | None:
    """Of the presets with the size in a name, the one that shares most words with it; None where the name has no size
    or several. wanted: of this family only."""
    sizes = [short for short in SHORT if re.search(rf"(?<![\d.]){short}(?![a-z0-9])", name)]
    words = set(re.split(r"[^a-z0-9.]+", name))
    known = [one for one in table.PRESETS if not wanted or table.of(table.PRESETS[one]).name == wanted]
    of_size = [one for one in known if [one.rsplit("-", 1)[-1]] == sizes]
    return max(of_size, key=lambda one: len(words & set(one.split("-"))), default=None)


def _outline(folder: pathlib.Path, model: config.ModelSettings) -> outline_lib.Outline:
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is loaded: a plan downloads no tower
    from vlguard_jax.checkpoints import outline

    return outline.read(
        folder, base=model.base, vision_tower=model.vision_tower, projector=model.projector, as_family=model.family
    )
