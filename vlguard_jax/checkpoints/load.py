"""Loading a checkpoint of any supported layout into one parameter tree."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent import futures
import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import lazy
from vlguard_jax.checkpoints import manifest
from vlguard_jax.checkpoints import plans
from vlguard_jax.checkpoints import sources
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import parameters
from vlguard_jax.families import table

_HASHING = 2  # arrays at a time: as fast as the files are read


def load(
    path: str | os.PathLike[str],
    *,
    base: str = "",
    vision_tower: str = "",
    projector: str = "",
    as_family: str = "",
    dtype: np.dtype | type | None = None,
) -> checkpoint.Checkpoint:
    """Load a checkpoint: a local folder or hub id of any supported layout, recognised by its files.

    Args:
      path: original LLaVA, llava-hf (any naming generation), PEFT adapter, projector-only, Llama or exported Orbax
        folder.
      base: base model of a PEFT or projector-only folder; needed where the one in adapter_config.json is not found.
      vision_tower: CLIP folder or hub id, overriding the name in config.json.
      projector: `mm_projector.bin`, with a Llama folder in `path`.
      as_family: name of the family of a model composed of tower, projector and Llama folder; empty: the first that
        fits.
      dtype: cast every array to this type; None keeps what is stored.

    Raises:
      UserError: anything wrong with the files: unknown, missing, duplicate or misshapen tensors, unsupported settings,
        ...
    """
    named = {"base": base, "vision_tower": vision_tower, "projector": projector, "as_family": as_family}
    folder = _checked(path)
    if export.is_export(folder):
        _refuse(folder, named)
        return _named(path, export.load_export(folder, dtype))
    plan = _plan(folder, named)
    listed = _listed(plan)
    flat, digests = _read(listed, plan)
    if dtype is not None:
        flat = {id_: value.astype(dtype, copy=False) for id_, value in flat.items()}
    return _checkpoint(path, plan, listed, flat, digests)


def opened(
    path: str | os.PathLike[str],
    *,
    base: str = "",
    vision_tower: str = "",
    projector: str = "",
    as_family: str = "",
    hashed: bool = True,
) -> checkpoint.Checkpoint:
    """As `load`, but the arrays stay in their files and are read one layer at a time (lazy.py).

    hashed: read all of them once, to check their numbers and to fill in the hashes. Without it they are checked where
    they are used, and `weights_sha256` and the hash of `base` are empty.

    Raises as `load`.
    """
    named = {"base": base, "vision_tower": vision_tower, "projector": projector, "as_family": as_family}
    folder = _checked(path)
    if export.is_export(folder):
        _refuse(folder, named)
        return _named(path, export.opened(folder))
    plan = _plan(folder, named)
    listed = _listed(plan)
    digests = _hashed(listed, plan) if hashed or plan.base_sha256 else {}
    return _checkpoint(path, plan, listed, listed.flat, digests)


@dataclasses.dataclass(frozen=True)
class _Listed:
    """flat: by tree path, arrays that are read when they are asked for, and those drawn here. padding: stored rows
    beyond the vocabulary. unused: names of tensors that are left out on purpose."""

    flat: dict[str, Any]
    padding: dict[str, np.ndarray]
    unused: tuple[str, ...]


def _checked(path: str | os.PathLike[str]) -> pathlib.Path:
    folder = hub.resolve(path)
    manifest.check(folder)
    return folder


def _refuse(folder: pathlib.Path, named: Mapping[str, str]) -> None:
    plans.refuse(folder, **{"family" if key == "as_family" else key: value for key, value in named.items()})


def _named(path: str | os.PathLike[str], found: checkpoint.Checkpoint) -> checkpoint.Checkpoint:
    return dataclasses.replace(found, extras={**found.extras, "source": str(path)})


def _plan(folder: pathlib.Path, named: Mapping[str, str]) -> plans.Plan:
    plan = sources.make_plan(folder, **named)
    for where in {piece.where if piece.where.is_dir() else piece.where.parent for piece in plan.pieces} - {folder}:
        manifest.check(where)
    return plan


def _listed(plan: plans.Plan) -> _Listed:
    listed = _Listed({}, {}, ())
    unused: list[str] = []
    for piece in plan.pieces:
        rows, placed, skipped = plans.match_piece(plan, piece)
        unused += skipped
        for row in rows:
            column = placed[row.path]
            listed.flat[row.path] = lazy.Stored(row, tuple(column))
            if row.path in parameters.VOCABULARY and row.stored_shape[0] > plan.config.text.vocab_size:
                listed.padding[row.path] = column[0].read_rows(plan.config.text.vocab_size, row.stored_shape[0])
    for id_, one in table.parameters_of(plan.config, plan.lora).items():
        if one.fresh and id_ not in listed.flat:
            listed.flat[id_] = _drawn(one)
    return dataclasses.replace(listed, unused=tuple(unused))


def _checkpoint(
    path: str | os.PathLike[str],
    plan: plans.Plan,
    listed: _Listed,
    flat: Mapping[str, Any],
    digests: Mapping[str, str],
) -> checkpoint.Checkpoint:
    fingerprint = checkpoint.base_fingerprint(digests, plan.config, plan.lora) if digests else ""
    own = checkpoint.Base(plan.base or str(path), plan.base_layout, fingerprint)
    if plan.base_sha256 and own.sha256 != plan.base_sha256:
        raise errors.UserError(
            f"{path}: these adapters were trained on other weights than {own.name} holds ({plan.base_sha256[:12]},"
            f" found {own.sha256[:12]}; another number format counts too); name the language model and the tower that"
            " they were trained on as base and vision_tower"
        )
    stands_on: checkpoint.Base | None = own
    if plan.exported is not None:  # what it was exported from, if it is still that
        recorded = plan.exported.base
        stands_on = recorded if recorded and recorded.sha256 == fingerprint else None
    extras: extras_lib.Extras = {**plan.extras, "source": str(path)}
    if listed.padding:
        extras["padding"] = listed.padding
    if listed.unused:
        extras["unused"] = listed.unused
    return checkpoint.Checkpoint(
        config=plan.config,
        params=trees.unflatten(flat),
        lora=plan.lora,
        tokenizer_folder=plan.tokenizer_folder,
        weights_sha256=checkpoint.combine(digests) if digests else "",
        layout=plan.layout,
        base=None if plans.changes_base(plan) else stands_on,
        extras=extras,
    )


def _read(listed: _Listed, plan: plans.Plan) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """By tree path: arrays, and their hashes."""
    known = table.parameters_of(plan.config, plan.lora)
    flat: dict[str, np.ndarray] = {}
    hashes: dict[str, futures.Future[str]] = {}
    with futures.ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:  # one array is hashed while the next is read
        last: futures.Future[str] | None = None
        for id_, leaf in listed.flat.items():
            flat[id_] = lazy.whole(leaf, known[id_].stacked)
            if last is not None:
                last.result()
            last = hashes[id_] = pool.submit(_digest, id_, leaf, flat[id_])
    return flat, {id_: future.result() for id_, future in hashes.items()}


def _digest(id_: str, leaf: lazy.Leaf, value: np.ndarray) -> str:
    try:
        return checkpoint.digest(id_, value)
    except checkpoint.NotFiniteError as e:
        if not isinstance(leaf, lazy.Stored):
            raise
        where = leaf.where(e.layer if leaf.row.stacked else 0)
        raise checkpoint.NotFiniteError(where, e.value, e.layer) from e


def _hashed(listed: _Listed, plan: plans.Plan) -> dict[str, str]:
    """By tree path, hashes of the arrays; memory holds some layers."""
    known = table.parameters_of(plan.config, plan.lora)
    with futures.ThreadPoolExecutor(_HASHING, thread_name_prefix="hash") as pool:
        given = [(id_, leaf, known[id_].stacked) for id_, leaf in listed.flat.items()]
        return dict(zip(listed.flat, pool.map(lambda one: checkpoint.digest_lazily(*one), given), strict=True))


def _drawn(one: parameters.Parameter) -> np.ndarray:
    """A parameter that is not in the files, f32, drawn with a seed that depends on its id only."""
    seed = int.from_bytes(hashlib.sha256(one.id.encode()).digest()[:8])
    return (one.fresh * np.random.default_rng(seed).standard_normal(one.shape)).astype(np.float32)
