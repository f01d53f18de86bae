"""The training store: steps of (arrays, record) in Orbax. A step is there as a whole or not at all.

Where folders cannot be renamed, as on a mounted bucket, a step is written in its place, and what makes it one comes
last. One that was damaged since is set aside under another name, never deleted. A full disk costs none that is there.

The record holds, for every array, shape, dtype and a checksum that is computed on the devices. It does not depend on
the sharding, and so is checked after a restore onto another mesh, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import shutil
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import fingerprints
from vlguard_jax import folders
from vlguard_jax import machine
from vlguard_jax import trees
from vlguard_jax.checkpoints import header
from vlguard_jax.checkpoints import steps as steps_lib
from vlguard_jax.checkpoints import stored

_UNFINISHED = re.compile(r"[0-9]+\.orbax-checkpoint-tmp(-[0-9]+)?")
_ATOMICITY = {  # by whether steps are written in their place; then those that were renamed into it are read, too
    False: ocp.options.AtomicityOptions(ocp.options.AtomicityMode.ATOMIC_RENAME),
    True: ocp.options.AtomicityOptions(ocp.options.AtomicityMode.COMMIT_FILE, allow_legacy_atomic_rename=True),
}


class Store:
    """Numbered steps in a folder, of which the newest `keep` stay. Saves in the background; `close` waits for it.

    With several processes, all call every method, and arrays are global (not local to one host).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int = 1,
        also: Callable[[], int | None] = lambda: None,
        agree: Callable[[str], str] = lambda problem: problem,
    ):
        """Open or create the store; what an interrupted save left behind is deleted. also: a step that stays besides
        the newest ones, asked after each save; the same in all processes. agree: given a process's problem, "" for
        none, returns the first problem of all processes; every process calls it.

        `notices` tells which steps were set aside, since they are visibly no whole ones beside others that are.

        Raises:
          UserError: the folder, a step or something in a step is a link, a pipe or a device, a step has an odd number,
            no step is a whole one, or the folder has a name that Orbax does not write.
        """
        self._folder, self._agree = pathlib.Path(folder).absolute(), agree
        self.notices: list[str] = []
        self._saving: int | None = None  # the step whose save may be under way
        self._failed: Exception | None = None  # why the last save came to nothing
        stored.check_name(self._folder)
        steps_lib.check(self._folder)
        first, problem = jax.process_index() == 0, ""
        if first:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._in_place = agree("in place" if first and not folders.renamed(self._folder) else "") != ""
        if first:
            self._remove_unfinished()
            problem = self._set_aside_visibly_broken()
        if problem := agree(problem):
            raise steps_lib.Damaged(problem)
        stays = managers.AnyPreservationPolicy([managers.LatestN(keep), _Also(also)])
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=stays, enable_async_checkpointing=True, atomicity_options=_ATOMICITY[self._in_place]
        )
        self._open()

    def _open(self) -> None:
        with _damaged(f"{self._folder}: a step"):
            self._manager = ocp.CheckpointManager(self._folder, options=self._options)

    def save(self, step: int, tree: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
        """Save a step.

        `tree`: nested dict of arrays (None leaves are left out); `meta`: JSON values, merged into the record.

        Returns, when the arrays may be donated or changed, what came to nothing because the disk is full: the save
        before, of which that shows only now, or this one. Writing continues in the background. With several processes
        a full disk is raised: the others wait for the one that met it.
        """
        told = self._finished()
        arrays = _arrays(tree)
        manifest = {path: _describe(value) for path, value in arrays.items()}
        record = {**meta, **header.current(), "kind": "training", "step": step, "arrays": manifest}
        args = ocp.args.Composite(state=ocp.args.StandardSave(trees.unflatten(arrays)), meta=ocp.args.JsonSave(record))
        self._saving, self._failed = step, None
        try:
            self._manager.save(step, args=args, force=True)
        except Exception as e:
            told += self._lost(e)
        return told

    def _finished(self) -> list[str]:
        """Wait for the save under way; what to say if it came to nothing."""
        try:
            self._manager.wait_until_finished()
        except Exception as e:
            return self._lost(e)
        return []

    def _lost(self, error: Exception) -> list[str]:
        full = machine.full(error)
        if full is None or jax.process_count() > 1:
            raise error
        step, self._saving, self._failed = self._saving, None, error
        with contextlib.suppress(Exception):  # it says the same again
            self._manager.close()
        self._remove_unfinished()
        self._open()
        newest = self._manager.latest_step()
        kept = "no update is saved yet" if newest is None else f"update {newest} is the newest that is saved"
        return [f"update {step} is not saved, {full}: {self._folder}; {kept}, and the next save tries again"]

    def wait(self) -> None:
        """Wait until all saves are on disk. Raises what the last one failed with."""
        self._finished()
        if self._failed is not None:
            raise self._failed

    def steps(self) -> list[int]:
        """The complete steps, from the newest."""
        self._manager.wait_until_finished()
        return sorted(self._manager.all_steps(), reverse=True)

    def latest_step(self) -> int | None:
        """The newest complete step, None without one."""
        return next(iter(self.steps()), None)

    def aside(self) -> list[str]:
        """The names of steps that were set aside."""
        return steps_lib.aside(self._folder)

    def set_aside(self, step: int) -> str:
        """Rename a step, so that it is one no longer; its new name. Every process calls this."""
        name = steps_lib.free_name(self._folder, step)
        self._agree("")  # all have found the same name
        if jax.process_index() == 0:
            folders.rename(self._folder / str(step), self._folder / name)
        self._agree("")
        self._manager.reload()
        return name

    def _set_aside_visibly_broken(self) -> str:
        """Set aside steps whose notes cannot be read: Orbax reads those of all steps when it opens a folder. What is
        wrong if no other step is there, else ""."""
        steps = [entry for entry in (self._folder.iterdir() if self._folder.is_dir() else ()) if entry.name.isdecimal()]
        steps.sort(key=lambda step: int(step.name), reverse=True)
        broken = {step: why for step in steps if (why := steps_lib.visibly_broken(step))}
        if broken and len(broken) == len(steps):
            return steps_lib.none_whole(broken[steps[0]], self._folder)
        for step, why in broken.items():
            name = steps_lib.free_name(self._folder, int(step.name))
            folders.rename(step, step.with_name(name))
            self.notices.append(steps_lib.told_aside(why, self._folder, name))
        return ""

    def __contains__(self, step: int) -> bool:
        """Whether the step is there, as a whole."""
        return step in self._manager.all_steps()

    def read_meta(self, step: int) -> dict[str, Any]:
        """The record of a step.

        Raises:
          Damaged: it is no record of a training.
          UserError: no such step, or one of another format version.
        """
        if step not in self:
            raise errors.UserError(f"{self._folder}: no step {step} here; the newest is {self.latest_step()}")
        where = f"{self._folder}/{step}"
        try:
            record = files.read_object(self._folder / str(step) / "meta" / "metadata", finite=False)
        except errors.UserError as e:
            raise steps_lib.Damaged(f"{where}: damaged record: {e}") from e
        header.check(record, where)
        steps_lib.check_record(record, step, where)
        return record

    def restore(self, step: int, abstract_tree: Mapping[str, Any]) -> dict[str, Any]:
        """Read a step into the shardings of `abstract_tree`, a nested dict of jax.ShapeDtypeStruct with sharding (or
        None).

        The arrays' checksums are checked. Raises the same in every process, whichever has read something wrong.

        Raises:
          Damaged: the step is, the saved arrays are not those asked for, or a parameter is not finite.
          UserError: see `read_meta`.
        """
        where = f"{self._folder}/{step}"
        manifest = self.read_meta(step)["arrays"]
        wanted = _arrays(abstract_tree)
        for path in sorted(manifest.keys() | wanted.keys()):
            saved = manifest.get(path, {"shape": None, "dtype": "nothing"})
            asked = (
                {"shape": list(wanted[path].shape), "dtype": np.dtype(wanted[path].dtype).name}
                if path in wanted
                else None
            )
            if asked is None or any(saved[key] != asked[key] for key in asked):
                raise steps_lib.Damaged(
                    f"{where}: {path}: saved is {saved['dtype']}{saved['shape']}, this run needs {asked or 'nothing'}"
                )
        state, problem = self._folder / str(step) / "state", ""
        try:
            with _damaged(where):
                stored.check_sizes(state, stored.read(state))
                # not by the manager, in which processes wait for each other, whatever one of them has met
                target = ocp.args.StandardRestore(trees.unflatten(wanted))
                restored = trees.flatten(ocp.StandardCheckpointHandler().restore(epath.Path(state), args=target))
        except errors.UserError as e:
            problem = str(e)
        if problem := self._agree(problem):
            raise steps_lib.Damaged(problem)
        for path, value in restored.items():
            if _describe(value) != manifest[path]:
                raise steps_lib.Damaged(f"{where}: {path} is not what was saved (checksum)")
            if path.startswith("params.") and not _finite(value):
                raise steps_lib.Damaged(f"{where}: {path} holds NaN or an infinity")
        return _fill(abstract_tree, restored)

    def close(self) -> None:
        """Wait for the last save and close the folder. A failed save leaves nothing behind."""
        try:
            self._manager.wait_until_finished()
            self._manager.close()
        finally:
            if jax.process_count() == 1:  # else another may still be writing
                self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        for leftover in self._folder.iterdir() if self._folder.is_dir() else ():
            if leftover.is_symlink() or not leftover.is_dir():
                continue
            in_place = self._in_place and leftover.name.isdecimal() and steps_lib.unfinished(leftover)
            if in_place or _UNFINISHED.fullmatch(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class _Also(managers.PreservationPolicy):
    """Preserves the step that a function names."""

    step: Callable[[], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        named = self.step()
        return [one.step == named for one in checkpoints]


@contextlib.contextmanager
def _damaged(where: str) -> Iterator[None]:
    """Turn any exception of Orbax on a damaged folder into Damaged; failures of the machine pass unchanged."""
    try:
        yield
    except errors.UserError:
        raise
    except Exception as e:
        if machine.failure(e, places=False):
            raise
        raise steps_lib.Damaged(f"{where}: damaged: {e or type(e).__name__}") from e


def _arrays(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in trees.flatten(tree).items() if value is not None}


def _fill(like: Mapping[str, Any], flat: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of the structure of `like`, empty sections and None leaves included."""
    return {
        key: _fill(value, flat, f"{prefix}{key}.") if isinstance(value, Mapping) else flat.get(f"{prefix}{key}")
        for key, value in like.items()
    }


def fingerprint(tree: Mapping[str, Any]) -> str:
    """A hash of a tree of arrays by their checksums, which are computed on the devices; the same under any
    sharding."""
    return fingerprints.of(checksums(tree))


def checksums(tree: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted path, shape, dtype and checksum of every array of a tree, computed on the devices; the same under any
    sharding."""
    return {path: _describe(value) for path, value in _arrays(tree).items()}


def _describe(value: Any) -> dict[str, Any]:
    array = jnp.asarray(value)
    checksum = int(np.asarray(_checksum_program(_replicated(array))(array)))
    return {"shape": list(array.shape), "dtype": np.dtype(array.dtype).name, "checksum": f"{checksum:08x}"}


def _finite(array: jax.Array) -> bool:
    out = _replicated(array)
    return bool(np.asarray(jax.jit(lambda x: jnp.isfinite(x).all(), out_shardings=out)(array)))


def _replicated(array: jax.Array) -> jax.sharding.Sharding | None:
    sharding = array.sharding
    return jax.NamedSharding(sharding.mesh, jax.P()) if isinstance(sharding, jax.NamedSharding) else None


@functools.cache
def _checksum_program(out: jax.sharding.Sharding | None) -> Any:
    return jax.jit(_checksum) if out is None else jax.jit(_checksum, out_shardings=out)


def _checksum(x: jax.Array) -> jax.Array:
    """Sum modulo 2^32 over a hash of every element's bits and position: the same in any order and under any
    sharding."""
    bits = x.view({2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]) if jnp.issubdtype(x.dtype, jnp.floating) else x
    position = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        position = position * jnp.uint32(2654435761) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    mixed = bits.astype(jnp.uint32) ^ (position * jnp.uint32(0x9E3779B1))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # a well-known 32-bit mixer ("lowbias32")
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)
