"""The adapters of a run, out of its newest checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import trees
from vlguard_jax import typed
from vlguard_jax.checkpoints import arrays
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import header
from vlguard_jax.checkpoints import steps as steps_lib
from vlguard_jax.checkpoints import store as store_lib
from vlguard_jax.checkpoints import stored
from vlguard_jax.families import functional
from vlguard_jax.training import resume
from vlguard_jax.training import setup
from vlguard_jax.training import step as step_lib
from vlguard_jax.training import tuned

_PREFIX = "params."  # of a trained parameter's name in a checkpoint


def of_run(workdir: Path) -> tuple[checkpoint_lib.Checkpoint, np.dtype, str]:
    """The model of a LoRA run as its newest checkpoint has it, with its adapters apart; the number format that the run
    itself would write them in; and what to say of where they are from. Nothing in the folder is changed, and its model
    may have been trained by any number of devices.

    Raises:
      UserError: the run tunes all weights, saved nothing yet, or its newest checkpoint is damaged; or the model that it
        started from is not at hand, or not as it was.
    """
    folder = workdir / resume.FOLDER
    steps_lib.check(folder)
    numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and not steps_lib.unfinished(path)]
    if not numbers:
        raise errors.UserError(f"{folder}: no update is saved yet; start the same train command again")
    step = folder / str(max(numbers))
    if why := steps_lib.visibly_broken(step):
        raise steps_lib.Damaged(f"{why}; start the same train command again, which goes on from an older one")
    record = files.read_object(step / "meta" / "metadata", finite=False)
    header.check(record, str(step))
    typed.check(resume.Record, record, f"{step}: damaged record")
    settings = config.resolve(record["config"], config.TrainConfig)
    if not settings.lora.rank:
        raise errors.UserError(f"{workdir}: this run tunes all weights, so it has no adapters; convert {workdir}/model")
    start = setup.load_model(settings)
    resume.check_start(record, start)
    wanted, frozen = step_lib.split(start.params, start.config, start.lora)
    trained = _trained(step, record["arrays"], wanted)
    whole = tuned.with_provenance(settings, start, updates=record["step"], stand_in=record["stand_in"])
    whole.extras["provenance"].pop("hardware", None)  # the checkpoint does not tell it
    model = dataclasses.replace(whole, params=step_lib.join(trained, frozen), weights_sha256="")
    return model, np.dtype(functional.DTYPES[settings.precision.compute]), f"{step}: its arrays have their checksums"


def _trained(step: Path, told: dict[str, Any], wanted: functional.Params) -> functional.Params:
    """The trained parameters of a checkpoint, compared with their checksums."""
    where = step / "state"
    with arrays.naming_damage(where):
        found = stored.read(where)
        stored.check_sizes(where, found)
    shapes = {f"{_PREFIX}{path}": tuple(value.shape) for path, value in trees.flatten(wanted).items()}
    if shapes != {path: tuple(one["shape"]) for path, one in told.items() if path.startswith(_PREFIX)}:
        raise steps_lib.Damaged(
            f"{step}: its parameters are not those of its config; start the same train command again"
        )
    values = {path: np.asarray(arrays.of(where, path, found[path])[...]) for path in shapes if path in found}
    checksums = store_lib.checksums(values)
    if differing := [path for path in shapes if checksums.get(path) != told[path]]:
        raise steps_lib.Damaged(f"{step}: {differing[0]} is not what was saved (checksum)")
    return trees.unflatten({path.removeprefix(_PREFIX): value for path, value in values.items()})
