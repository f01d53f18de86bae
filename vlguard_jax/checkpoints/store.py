"""The training store: steps of (arrays, record) in Orbax. A step is there as a whole or not at all.

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
from vlguard_jax.checkpoints import stored

_UNFINISHED = re.compile(r"[0-9]+\.orbax-checkpoint-tmp(-[0-9]+)?")


class Store:
    """Numbered steps in a folder, of which the newest `keep` stay. Saves in the background; `close` waits for it.

    With several processes, all call every method, and arrays are global (not local to one host).
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 1, also: Callable[[], int | None] = lambda: None):
        """Open or create the store; what an interrupted save left behind is deleted. also: a step that stays besides
        the newest ones, asked after each save; the same in all processes.

        Raises:
          UserError: the folder, a step or something in a step is a link, a pipe or a device, or a step has an odd
            number.
        """
        self._folder = pathlib.Path(folder).absolute()
        _check_steps(self._folder)
        if jax.process_index() == 0:
            self._remove_unfinished()
        stays = managers.AnyPreservationPolicy([managers.LatestN(keep), _Also(also)])
        options = ocp.CheckpointManagerOptions(preservation_policy=stays, enable_async_checkpointing=True)
        with _damaged(f"{self._folder}: a step", "remove it"):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, step: int, tree: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """Save a step.

        `tree`: nested dict of arrays (None leaves are left out); `meta`: JSON values, merged into the record.

        Returns when the arrays may be donated or changed; writing continues in the background.
        """
        arrays = _arrays(tree)
        manifest = {path: _describe(value) for path, value in arrays.items()}
        record = {**meta, **header.current(), "kind": "training", "step": step, "arrays": manifest}
        args = ocp.args.Composite(state=ocp.args.StandardSave(trees.unflatten(arrays)), meta=ocp.args.JsonSave(record))
        self._manager.save(step, args=args, force=True)

    def wait(self) -> None:
        """Wait until all saves are on disk."""
        self._manager.wait_until_finished()

    def latest_step(self) -> int | None:
        """The newest complete step, None without one. Raises UserError if Orbax's metadata of a step is damaged."""
        self._manager.wait_until_finished()
        with _damaged(f"{self._folder}: a step", "remove it"):
            return self._manager.latest_step()

    def __contains__(self, step: int) -> bool:
        """Whether the step is there, as a whole."""
        return step in self._manager.all_steps()

    def read_meta(self, step: int) -> dict[str, Any]:
        """The record of a step.

        Raises:
          UserError: no such step, a damaged one, or one of another format version.
        """
        if step not in self:
            raise errors.UserError(f"{self._folder}: no step {step} here; the newest is {self.latest_step()}")
        where = f"{self._folder}/{step}"
        try:
            record = files.read_object(self._folder / str(step) / "meta" / "metadata", finite=False)
        except errors.UserError as e:
            raise errors.UserError(f"{where}: damaged record: {e}; or remove this step") from e
        header.check(record, where)
        _check_record(record, step, where)
        return record

    def restore(self, step: int, abstract_tree: Mapping[str, Any]) -> dict[str, Any]:
        """Read a step into the shardings of `abstract_tree`, a nested dict of jax.ShapeDtypeStruct with sharding (or
        None).

        The arrays' checksums are checked.

        Raises:
          UserError: the saved arrays are not those asked for, the step is damaged, a parameter is not finite, or see
            `read_meta`.
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
                raise errors.UserError(
                    f"{where}: {path}: saved is {saved['dtype']}{saved['shape']}, this run needs {asked or 'nothing'}"
                )
        state = self._folder / str(step) / "state"
        with _damaged(where, "remove this step to go on from an older one"):
            stored.check_sizes(state, stored.read(state))
            target = ocp.args.Composite(state=ocp.args.StandardRestore(trees.unflatten(wanted)))
            restored = trees.flatten(self._manager.restore(step, args=target)["state"])
        for path, value in restored.items():
            if _describe(value) != manifest[path]:
                raise errors.UserError(
                    f"{where}: {path} is not what was saved (checksum); remove this step to go on from an older one"
                )
            if path.startswith("params.") and not _finite(value):
                raise errors.UserError(
                    f"{where}: {path} holds NaN or an infinity; remove this step to go on from an older one"
                )
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
            if _UNFINISHED.fullmatch(leftover.name) and leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class _Also(managers.PreservationPolicy):
    """Preserves the step that a function names."""

    step: Callable[[], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        named = self.step()
        return [one.step == named for one in checkpoints]


@contextlib.contextmanager
def _damaged(where: str, way: str) -> Iterator[None]:
    """Turn any exception of Orbax on a damaged folder into a UserError; failures of the machine pass unchanged."""
    try:
        yield
    except errors.UserError:
        raise
    except Exception as e:
        if machine.failure(e, places=False):
            raise
        raise errors.UserError(f"{where}: damaged, {way}: {e or type(e).__name__}") from e


def _check_steps(folder: pathlib.Path) -> None:
    """Raise UserError unless every entry that looks like a step is one: Orbax follows links, deletes old steps and
    blocks on pipes."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise errors.UserError(
            f"{folder} must be a folder, not a {'link' if folder.is_symlink() else 'file'}; choose another --workdir"
        )
    for step in folder.iterdir():
        try:
            number = int(step.name)  # as Orbax does
        except ValueError:
            continue
        name = errors.short(step.name)
        if str(number) != step.name or not 0 <= number < 2**31:
            raise errors.UserError(
                f"{folder}: {name} is not the number of a step; remove it, or choose another --workdir"
            )
        if step.is_symlink() or not step.is_dir():
            raise errors.UserError(f"{folder}: step {name} is not a folder; remove it, or choose another --workdir")
        if odd := next(filter(folders.odd, step.rglob("*")), None):
            what = "a link" if odd.is_symlink() else "a pipe or a device"
            raise errors.UserError(
                f"{folder}: step {name} holds {what}, {errors.short(odd.name)}; remove it, or choose another --workdir"
            )


def _check_record(record: Mapping[str, Any], step: int, where: str) -> None:
    """Raise UserError unless a record has the form that `Store.save` writes."""
    arrays = record.get("arrays")
    whole = isinstance(arrays, dict) and all(
        isinstance(each, dict)
        and set(each) == {"shape", "dtype", "checksum"}
        and isinstance(each["shape"], list)
        and all(type(size) is int and size >= 0 for size in each["shape"])
        and isinstance(each["dtype"], str)
        and isinstance(each["checksum"], str)
        for each in arrays.values()
    )
    own = (record.get("kind"), record.get("step")) == ("training", step) and type(record.get("step")) is int
    texts = all(isinstance(record[name], str) for name in ("config_hash", "base_sha256") if name in record)
    if not (whole and own and texts and isinstance(record.get("config"), dict)):
        raise errors.UserError(
            f"{where}: damaged record: it is not what a training of this program writes; remove this step"
        )


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
    return fingerprints.of({path: _describe(value) for path, value in _arrays(tree).items()})


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
