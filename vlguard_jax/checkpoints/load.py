"""Loading a checkpoint of any supported layout into one parameter tree."""

from __future__ import annotations

from concurrent import futures
import dataclasses
import hashlib
import os

import numpy as np

from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import plans
from vlguard_jax.checkpoints import sources
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import parameters
from vlguard_jax.families import table


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
    folder = hub.resolve(path)
    if export.is_export(folder):
        plans.refuse(folder, base=base, vision_tower=vision_tower, projector=projector, family=as_family)
        exported = export.load_export(folder, dtype)
        return dataclasses.replace(exported, extras={**exported.extras, "source": str(path)})
    plan = sources.make_plan(folder, base=base, vision_tower=vision_tower, projector=projector, as_family=as_family)
    flat, digests, padding = _read(plan, dtype)
    fingerprint = checkpoint.base_fingerprint(digests, plan.config, plan.lora)
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
    if padding:
        extras["padding"] = padding
    return checkpoint.Checkpoint(
        config=plan.config,
        params=trees.unflatten(flat),
        lora=plan.lora,
        tokenizer_folder=plan.tokenizer_folder,
        weights_sha256=checkpoint.combine(digests),
        layout=plan.layout,
        base=None if plans.changes_base(plan) else stands_on,
        extras=extras,
    )


def _read(
    plan: plans.Plan, dtype: np.dtype | type | None
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, np.ndarray]]:
    """By tree path: arrays, hashes of the stored arrays, and the stored rows beyond the vocabulary."""
    flat: dict[str, np.ndarray] = {}
    padding: dict[str, np.ndarray] = {}
    hashes: dict[str, futures.Future[str]] = {}
    with futures.ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:  # one array is hashed while the next is read
        last: futures.Future[str] | None = None
        for piece in plan.pieces:
            rows, placed, _ = plans.match_piece(plan, piece)
            for row in rows:
                value = _read_row(row, placed[row.path])
                if last is not None:
                    last.result()
                last = hashes[row.path] = pool.submit(_digest, row, placed[row.path], value)
                flat[row.path] = value if dtype is None else value.astype(dtype, copy=False)
                if row.path in parameters.VOCABULARY and row.stored_shape[0] > plan.config.text.vocab_size:
                    padding[row.path] = placed[row.path][0].read()[plan.config.text.vocab_size :]
    digests = {path: future.result() for path, future in hashes.items()}
    for id_, one in table.parameters_of(plan.config, plan.lora).items():
        if one.fresh and id_ not in flat:
            flat[id_] = _drawn(one).astype(dtype or np.float32, copy=False)
            digests[id_] = checkpoint.digest(id_, flat[id_])
    return flat, digests, padding


def _drawn(one: parameters.Parameter) -> np.ndarray:
    """A parameter that is not in the files, f32, drawn with a seed that depends on its id only."""
    seed = int.from_bytes(hashlib.sha256(one.id.encode()).digest()[:8])
    return (one.fresh * np.random.default_rng(seed).standard_normal(one.shape)).astype(np.float32)


def _digest(row: layouts.Row, stored: list[tensors.Tensor], value: np.ndarray) -> str:
    try:
        return checkpoint.digest(row.path, value)
    except checkpoint.NotFiniteError as e:
        tensor = stored[e.layer if row.stacked else 0]
        raise checkpoint.NotFiniteError(f"{tensor.file}: tensor {tensor.name}", e.value, e.layer) from e


def _read_row(row: layouts.Row, stored: list[tensors.Tensor]) -> np.ndarray:
    dtypes = {t.dtype for t in stored}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)  # fp32 holds every fp16 and bf16 number
    value = np.empty(row.shape, dtype)
    for i, tensor in enumerate(stored):
        value[i if row.stacked else ...] = row.to_tree(tensor.read())
    return value
