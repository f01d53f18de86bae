"""Conversion of a checkpoint from one layout to another, tensor by tensor, and what is told about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import os
import pathlib

import numpy as np

from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax import progress
from vlguard_jax import terminal
from vlguard_jax import trees
from vlguard_jax.checkpoints import arrays
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import gate
from vlguard_jax.checkpoints import header
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import hub_hashes
from vlguard_jax.checkpoints import job as job_lib
from vlguard_jax.checkpoints import lazy
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import manifest
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.checkpoints import sources
from vlguard_jax.checkpoints import writing

WRITERS = {
    **{"orbax": save.save_orbax, "llava": save.save_llava, "hf": save.save_hf},
    **{"peft": save_adapters.save_peft, "peft-hf": save_adapters.save_peft_hf},
}


def convert(
    src: str,
    dst: str,
    to: str,
    dtype: writing.Dtype,
    *,
    parts: Mapping[str, str],
    overwrite: bool,
    further: Callable[[checkpoint.Checkpoint, str], Mapping[str, str]],
    early: bool = False,
    of_run: Callable[[pathlib.Path], tuple[checkpoint.Checkpoint, np.dtype, str]] | None = None,
) -> pathlib.Path:
    """Write the checkpoint `src` in the layout `to`, one of WRITERS, tensor by tensor; returns its folder.

    parts: base, vision_tower, projector and as_family, as for `load.load`. further: makes {name: text} of files that
    are written, too, from the model as it was read and the name of the number format that is written; `early`: before
    the long part, as it may fail. of_run: takes a working directory of a training for its adapters: the model, the
    number format for `dtype` None, and what to say.

    Raises:
      UserError: see `load.load`, `save.check`, `place.check_free` and the writers; or a file of the hub's cache is not
        what the hub has.
    """
    dst = _of_this_machine(dst)
    made_of = [src, *(parts[name] for name in ("base", "vision_tower", "projector"))]
    place.check_free(dst, overwrite, made_of)  # before the long part
    before = folders.identity(dst)
    folder = hub.resolve(src)
    if of_run is not None and to in save_adapters.LAYOUTS and sources.of_run(folder):
        if given := [name for name, value in parts.items() if value]:
            raise errors.UserError(f"--{given[0]}: {src} is a training, which knows what it started from; leave it out")
        model, own, checked = of_run(folder)
        dtype = own if dtype is None else dtype
    else:
        checked = _checked(src)
        model = _opened(src, to, dtype, parts, early)
    terminal.say(checked)
    save.check(model, to)
    if "note" in model.extras:
        terminal.say(model.extras["note"])
    if line := gate.told(model):
        terminal.say(line)
    kind = writing.dtype_name(model, dtype)
    merged = model if to in save_adapters.LAYOUTS else lora.merge_late(model)
    if folders.identity(dst) != before:
        raise errors.UserError(f"{dst}: another process has written it meanwhile; what it wrote stays")
    settings = [header.current(), to, kind, os.path.abspath(dst), repr(model.config), dict(parts)]
    with progress.writing(_bytes(merged, to)) as tell:
        job = job_lib.Job(job_lib.key_of(settings, _sources(merged, src, parts)), tell)
        if _same(model, to, dtype):
            job.weights_sha256 = model.weights_sha256
        files = further(model, kind) if early else {}
        job.further = lambda: files or further(_hashed(model, job), kind)
        WRITERS[to](merged, dst, dtype, overwrite=overwrite, job=job)
    if unused := model.extras.get("unused"):
        terminal.say(f"{src}: {len(unused)} of its tensors are not used: {errors.short(', '.join(unused))}")
    terminal.say(f"{dst}: written as {to}: {job.counted}")
    return pathlib.Path(dst)


def _of_this_machine(dst: str) -> str:
    """The target as a folder's path. Raises UserError: it is none."""
    dst = os.path.expanduser(dst)  # as --src; the shell does not expand --dst=~/folder
    if dst.startswith("~"):
        raise errors.UserError(f"--dst={dst}: there is no such user; for a folder of that name give ./{dst}")
    if "://" in dst:
        raise errors.UserError(f"--dst={dst}: a folder of this machine is written; name one and copy it afterwards")
    return dst


def _opened(src: str, to: str, dtype: writing.Dtype, parts: Mapping[str, str], early: bool) -> checkpoint.Checkpoint:
    """The model in its files. Its hash is that of its manifest, or made of Orbax's arrays as they are written; else all
    of it is read once more."""
    folder = hub.resolve(src)
    alone = not any(parts.values()) and not (folder / "adapter_config.json").is_file()
    known = manifest.weights_sha256(folder) if alone else ""
    while_written = alone and to == "orbax" and dtype is None and not early
    hashed = to in save_adapters.LAYOUTS or not (known or while_written)
    base, tower, projector, as_family = (parts[key] for key in ("base", "vision_tower", "projector", "as_family"))
    model = load.opened(src, base=base, vision_tower=tower, projector=projector, as_family=as_family, hashed=hashed)
    return dataclasses.replace(model, weights_sha256=known) if known and not model.weights_sha256 else model


def _same(model: checkpoint.Checkpoint, to: str, dtype: writing.Dtype) -> bool:
    """Whether the written arrays are those that were read."""
    kept = dtype is None or all(leaf.dtype == dtype for leaf in trees.flatten(model.params).values())
    return kept and to not in save_adapters.LAYOUTS and model.lora is None


def _hashed(model: checkpoint.Checkpoint, job: job_lib.Job) -> checkpoint.Checkpoint:
    return model if model.weights_sha256 else dataclasses.replace(model, weights_sha256=job.weights_sha256)


def _checked(src: str) -> str:
    """Compare the source with the hub's hashes, where there are some; what can be said of its content.

    Raises:
      UserError: a file differs.
    """
    folder = hub.resolve(src)
    known = hub_hashes.of(folder)
    if known:
        hub_hashes.check(known)
        return f"{src}: {len(known)} files are what the hub has"
    if manifest.has(folder):
        return f"{src}: compared with its {manifest.NAME}"
    return f"{src}: no {manifest.NAME}, no hashes of the hub: its structure can be checked, its content cannot"


def _sources(model: checkpoint.Checkpoint, src: str, parts: Mapping[str, str]) -> set[pathlib.Path]:
    """The folders and files that a conversion reads."""
    named = [src, *(parts[key] for key in ("base", "vision_tower", "projector"))]
    found = {hub.resolve(name) for name in named if name}
    leaves = list(trees.flatten(model.params).values())
    for leaf in leaves:
        if isinstance(leaf, lora.Merged):
            leaves += [leaf.kernel, leaf.a, leaf.b]
        elif isinstance(leaf, lazy.Stored):
            found |= {tensor.file for tensor in leaf.layers}
        elif isinstance(leaf, arrays.Array):
            found.add(leaf.where)
    return found


def _bytes(model: checkpoint.Checkpoint, to: str) -> int:
    leaves = trees.flatten(model.params)
    adapters = [leaf for path, leaf in leaves.items() if path.endswith((".lora_a", ".lora_b"))]
    return sum(map(lazy.size, adapters if to in save_adapters.LAYOUTS else leaves.values()))
