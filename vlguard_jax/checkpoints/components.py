"""The parts of a LLaVA model that is not in one folder: its tower and its projector."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
import os
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families import family
from vlguard_jax.families import table


def composed(name: str, folder: pathlib.Path) -> Callable[..., family.Config]:
    """The function that derives a model's sizes from its parts: of the family `name`, or of the first that has
    parts."""
    whole = [one for one in table.FAMILIES if one.read_original]
    chosen = table.named(name, str(folder)) if name else whole[0]
    if chosen.read_original is None:
        known = " or ".join(one.name for one in whole)
        raise errors.UserError(f"{folder}: a {chosen.name} model has no vision_tower and projector; family is {known}")
    return chosen.read_original


def projector_file(projector: str) -> pathlib.Path:
    """The projector file at the path `projector`, or in it."""
    path = hub.resolve(projector)
    path = path / "mm_projector.bin" if path.is_dir() else path
    if not path.is_file():
        raise errors.UserError(
            f"{path}: no such file; a projector is the mm_projector.bin of LLaVA's pretraining stage"
        )
    return path


def projector_type(path: pathlib.Path) -> str:
    """Its kind (families/blocks/projector.py), by the names of its tensors."""
    last = {name.rsplit("mm_projector.", 1)[-1] for name in tensors.open_file(path)}
    return "linear" if last == {"weight", "bias"} else "mlp2x_gelu"


def keeps_tower(config: Mapping[str, Any], where: str) -> bool:
    """Whether the weights beside a config.json in LLaVA's own layout include the tower, because it was trained (LLaVA:
    unfreeze_mm_vision_tower; LLaVA-NeXT's later code: mm_tunable_parts)."""
    found = fields.Fields(config, where)
    trained = found.text("mm_tunable_parts").split(",")
    return found.flag("unfreeze_mm_vision_tower") or "mm_vision_tower" in trained


def find_tower(name: str, folders: Collection[pathlib.Path]) -> pathlib.Path:
    """The tower that a config names: an absolute path, inside or beside the checkpoint, or a hub id."""
    last = pathlib.PurePath(name).name
    candidates = [pathlib.Path(name)] if pathlib.PurePath(name).is_absolute() else []
    for folder in folders:
        above = folder.resolve().parent
        candidates += [
            folder / "vision_tower",
            folder / last,
            above / name,
            above / last,
            above / "vision_tower" / last,
        ]
    for candidate in candidates:
        if os.path.isfile(candidate / "config.json"):  # False for a name that no file can have
            return candidate
    if not hub.is_hub_id(name):
        raise errors.UserError(
            f"vision tower {errors.short(name)} of config.json is not found; give its folder as vision_tower"
        )
    try:
        return hub.resolve(name)
    except errors.UserError as e:
        raise errors.UserError(f"vision tower of config.json: {e}; or give its folder as vision_tower") from e
