"""Finds what a checkpoint folder contains and which files hold which part of the model, from names and configs only."""

from __future__ import annotations

import math
import pathlib

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import workdir
from vlguard_jax.checkpoints import adapted
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import plans
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.checkpoints import whole


def make_plan(
    folder: pathlib.Path, *, base: str = "", vision_tower: str = "", projector: str = "", as_family: str = ""
) -> plans.Plan:
    """Find what a folder contains and where the rest of the model is.

    Raises:
      UserError: as `load`, except for faults that show only when tensors are listed.
    """
    if not folder.is_dir():
        raise errors.UserError(f"{folder}: a checkpoint is a folder, and this is a file")
    _check_no_run(folder)
    if (folder / "adapter_config.json").is_file():
        plans.refuse(folder, projector=projector, family=as_family)
        plan = adapted.plan(folder, base, vision_tower)
    else:
        _check_one(folder)
        plan = whole.plan(folder, base=base, vision_tower=vision_tower, projector=projector, as_family=as_family)
    total = sum(map(math.prod, layouts.tree_shapes(plan.config, plan.lora).values()))
    if total > limits.PARAMETERS:
        raise errors.UserError(
            f"{folder}: its sizes make {total:.1e} parameters, at most {limits.PARAMETERS:.0e} are read: correct"
            " config.json"
        )
    vocabulary.check(plan.tokenizer_folder, plan.config.text.vocab_size, plan.extras)
    return plan


def of_run(folder: pathlib.Path) -> bool:
    """Whether it is the working directory of a training."""
    return (folder / "metrics.jsonl").is_file() and (folder / "checkpoints").is_dir()


def _check_no_run(folder: pathlib.Path) -> None:
    """Raise UserError for the working directory of a training."""
    if not of_run(folder):
        return
    model = folder / workdir.MODEL
    when = "" if model.is_dir() else ", which is written at its end: start the same train command again"
    raise errors.UserError(
        f"{folder} is the working directory of a training; its model is {model}{when} (adapters apart, of a run with"
        " LoRA: vlguard convert --to peft or peft-hf)"
    )


def _check_one(folder: pathlib.Path) -> None:
    """Raise UserError if the models or adapters are one level below, as peft and trainers leave several."""
    kinds = ("config.json", "adapter_config.json")
    if (folder / kinds[0]).is_file():
        return
    below = sorted({path.parent.name for kind in kinds for path in folder.glob(f"*/{kind}")})
    if below:
        raise errors.UserError(
            f"{folder}: no config.json or adapter_config.json; name one of {errors.short(', '.join(below))} in it"
        )
