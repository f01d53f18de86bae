"""Writes the tuned model at the end of a run, with its provenance, from the mesh, one tensor at a time, in a layout
that other programs read."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
import shlex

import jax

from vlguard_jax import config
from vlguard_jax import folders
from vlguard_jax import trees
from vlguard_jax import versions
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import conversion
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import lazy
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.parallel import gather
from vlguard_jax.training import losses
from vlguard_jax.training import step as step_lib


def without_trained(start: checkpoint_lib.Checkpoint) -> checkpoint_lib.Checkpoint:
    """What `write` needs besides the trained parameters; in process 0, the other parameters as they were loaded."""
    if jax.process_index() != 0:
        return dataclasses.replace(start, params={})
    frozen = trees.flatten(step_lib.split(start.params, start.config, start.lora)[1])
    known = table.parameters_of(start.config, start.lora)
    in_memory = {path: lazy.whole(leaf, known[path].stacked) for path, leaf in frozen.items()}  # files may change
    return dataclasses.replace(start, params=trees.unflatten(in_memory))


def with_provenance(
    settings: config.TrainConfig, start: checkpoint_lib.Checkpoint, *, updates: int, stand_in: bool
) -> checkpoint_lib.Checkpoint:
    """`start` with the record of how it was tuned. stand_in: whether pictures were stand-ins."""
    before = start.extras.get("provenance", {})
    own: extras_lib.Provenance = {
        "schema": 1,
        "source": settings.model.path,
        "source_sha256": start.weights_sha256,
        "config_hash": workdir_lib.config_hash(settings),
        "updates": updates,
        "base_model": hub.id_of(settings.model.path) or before.get("base_model", ""),
        "hardware": _hardware(),
        "versions": versions.installed(),
        "stand_in": stand_in or bool(before.get("stand_in", False)),
    }
    if settings.model.template != table.AUTO:
        own["template"] = settings.model.template
    if (code := losses.own(settings.loss)) is not None:
        own["code"] = {code.name: code.sha256}
    return dataclasses.replace(start, extras={**start.extras, "provenance": own})


def _hardware() -> str:
    """The devices of this run in words, of however many processes: a model's files do not depend on that."""
    found = collections.Counter(device.device_kind for device in jax.devices())
    return ", ".join(f"{n} x {kind}" for kind, n in found.items())


def forget(path: Path) -> str:
    """Remove a model that an earlier end of the run wrote to `path`, by process 0; returns a message, or ""."""
    if jax.process_index() != 0 or not path.is_dir():
        return ""
    folders.remove(path)
    return f"removed {path}: an earlier end of this run wrote it, and its update is no longer the one to keep there"


def write(
    settings: config.TrainConfig, start: checkpoint_lib.Checkpoint, trained: functional.Params, path: Path
) -> str:
    """Write the tuned model to `path` as `config.run.export` (not "none") says; returns a message for the user.

    start: see `without_trained`; trained: on the mesh. Every process must call it; process 0 writes. Only one sharded
    matrix (of one layer, the embedding or the head) is whole at a time, and only on the host: see `gather`.

    Raises:
      Exception: see `checkpoints.save` and `gather.for_first`; a trained parameter is not finite.
    """
    kind = settings.run.export

    def save_with(params: functional.Params) -> None:
        tuned = dataclasses.replace(start, params=step_lib.join(params, start.params), weights_sha256="")
        dtype = functional.DTYPES[settings.precision.compute]
        whole = tuned if kind in save_adapters.LAYOUTS else lora.merge_late(tuned)
        conversion.WRITERS[kind](whole, path, dtype, overwrite=True)

    gather.for_first(trained, save_with)
    if jax.process_index() != 0:
        return ""
    merged = ", adapters merged" if start.lora and kind not in save_adapters.LAYOUTS else ""
    measure = f"python -m vlguard_jax.evaluate --config.model.path={shlex.quote(str(path))} ..."
    return f"wrote {path} ({kind} layout{merged}); measure it: {measure}"
