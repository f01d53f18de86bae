"""The tuned model at the end of a run: gathered from the devices, with where it comes from, in a layout others read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
import shlex

import jax
import numpy as np

from vlguard_jax import config
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import save
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import functional
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import step as step_lib

WRITERS = {"llava": save.save_llava, "hf": save.save_hf, "peft": save.save_peft}


def without_trained(start: checkpoint_lib.Checkpoint) -> checkpoint_lib.Checkpoint:
    """What `write` needs of the model besides the state: the parameters that are not trained, as they came."""
    return dataclasses.replace(start, params=step_lib.split(start.params, start.config, start.lora)[1])


def with_provenance(
    settings: config.TrainConfig, start: checkpoint_lib.Checkpoint, *, updates: int, stand_in: bool
) -> checkpoint_lib.Checkpoint:
    """`start` with the record of how the tuned model was made of it. stand_in: whether pictures were stand-ins."""
    own: extras_lib.Provenance = {
        "schema": 1,
        "source": settings.model.path,
        "source_sha256": start.weights_sha256,
        "config_hash": workdir_lib.config_hash(settings),
        "updates": updates,
        "stand_in": stand_in or bool(start.extras.get("provenance", {}).get("stand_in", False)),
    }
    return dataclasses.replace(start, extras={**start.extras, "provenance": own})


def write(
    settings: config.TrainConfig,
    start: checkpoint_lib.Checkpoint,
    program: program_lib.Program,
    state: step_lib.TrainState,
    path: Path,
) -> str:
    """Write the tuned model to `path` as `config.run.export` says, not "none"; returns what to tell the user.

    start: without the trained parameters. Every process has to call it; process 0 writes.

    Raises:
      UserError: see `checkpoints.save`.
    """
    kind, whole = settings.run.export, mesh_lib.replicated(program.mesh)
    gather = jax.jit(lambda x: x, out_shardings=whole)
    trained = jax.tree.map(lambda x: np.asarray(jax.device_get(gather(x))), state.params)
    if jax.process_index() != 0:
        return ""
    tuned = dataclasses.replace(start, params=step_lib.join(trained, start.params), weights_sha256="")
    written = tuned if kind == "peft" else lora.merge(tuned)
    WRITERS[kind](written, path, functional.DTYPES[settings.precision.compute], overwrite=True)
    merged = ", adapters merged" if tuned.lora and kind != "peft" else ""
    measure = f"python -m vlguard_jax.evaluate --config.model.path={shlex.quote(str(path))} ..."
    return f"wrote {path} ({kind} layout{merged}); measure it: {measure}"
