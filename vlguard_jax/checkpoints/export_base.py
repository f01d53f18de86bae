"""An exported model (Orbax) as the base of adapters: its arrays as the tensors of another layout, read on demand."""

from __future__ import annotations

from collections.abc import Callable
import functools
import pathlib

import numpy as np

from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import plans
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families import parameters
from vlguard_jax.families import table


def plan(folder: pathlib.Path) -> plans.Plan:
    """The whole of an exported model without adapters.

    Raises:
      UserError: see `export_record.read`; it has adapters. When a tensor is read, too: see `export.load_export`.
    """
    record = export_record.read(folder)
    if record.lora is not None:
        raise errors.UserError(
            f"{folder}: a base with adapters of its own; merge them first (python -m vlguard_jax.convert --to hf) and"
            " name the result as base"
        )
    found = functools.cache(lambda: export.opened(folder))  # when a tensor is read, as its content is compared then
    known = export.listed(folder, record)
    beyond = known.get(f"padding.{parameters.EMBEDDING}")
    stored_vocab = record.config.text.vocab_size + beyond.shape[0] if beyond is not None else None
    sees = table.of(record.config).pictures is not None
    seeing = [("llava", ("text", "head", "projector")), ("clip", ("vision",))]
    divided = seeing if sees else [("llama", ("text", "head"))]
    pieces = []
    for layout, parts in divided:
        listed = {}
        for row in layouts.rows(layout, record.config, parts, stored_vocab=stored_vocab):
            dtype = np.dtype(known[f"params.{row.path}"].dtype)
            for i, names in enumerate(row.names):
                read = functools.partial(_read, found, row, i)
                listed[names[0]] = tensors.Tensor(names[0], row.stored_shape, dtype, folder, read)
        pieces.append(plans.Piece(layout, folder, parts, stored_vocab, listed=listed))
    return plans.Plan(record.config, tuple(pieces), "orbax", folder, record.extras, exported=record)


def _read(found: Callable[[], checkpoint.Checkpoint], row: layouts.Row, layer: int) -> np.ndarray:
    model = found()
    value = row.from_tree(trees.flatten(model.params)[row.path][layer if row.stacked else ...])
    if value.shape == row.stored_shape:
        return value
    return np.concatenate([value, model.extras["padding"][row.path]])
