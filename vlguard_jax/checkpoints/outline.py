"""A model's description, without reading its weights."""

from __future__ import annotations

import dataclasses
import pathlib

from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import plans
from vlguard_jax.checkpoints import sources
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import family


@dataclasses.dataclass(frozen=True)
class Outline:
    """config: its sizes. tokenizer_folder, extras: as in `checkpoint.Checkpoint`."""

    config: family.Config
    tokenizer_folder: pathlib.Path
    extras: extras_lib.Extras


def read(
    folder: pathlib.Path, *, base: str = "", vision_tower: str = "", projector: str = "", as_family: str = ""
) -> Outline:
    """The outline of a checkpoint of any layout; arguments as in `load.load`.

    Raises:
      UserError: as `load.load`, except for faults that only the tensors show.
    """
    if export.is_export(folder):
        plans.refuse(folder, base=base, vision_tower=vision_tower, projector=projector, family=as_family)
        record = export_record.read(folder)
        return Outline(record.config, folder, record.extras)
    found = sources.make_plan(folder, base=base, vision_tower=vision_tower, projector=projector, as_family=as_family)
    return Outline(found.config, found.tokenizer_folder, found.extras)


def of(model: checkpoint.Checkpoint) -> Outline:
    """The outline of a model in memory."""
    return Outline(model.config, model.tokenizer_folder, model.extras)
