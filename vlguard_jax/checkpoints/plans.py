"""What a checkpoint folder contains: the model's sizes, and the files that hold its parts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
import dataclasses
import pathlib
import re

import numpy as np

from vlguard_jax import errors
from vlguard_jax.checkpoints import edits as edits_lib
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import family
from vlguard_jax.families import parameters
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs

_HEAD = re.compile(r"(^|\.)lm_head\.weight$")


@dataclasses.dataclass(frozen=True)
class Piece:
    """Files that hold some parts of the model in one layout. `dropped`: patterns left out besides the layout's own;
    `listed`: the tensors, where not all that `where` holds belong here."""

    layout: str
    where: pathlib.Path
    parts: Collection[str]
    stored_vocab: int | None = None
    dropped: tuple[str, ...] = ()
    listed: Mapping[str, tensors.Tensor] | None = None

    def open(self) -> dict[str, tensors.Tensor]:
        """List the tensors of the files."""
        if self.listed is not None:
            return dict(self.listed)
        return tensors.open_file(self.where) if self.where.is_file() else tensors.open_folder(self.where)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checkpoint's family, sizes and parts.

    base: name of the folder with the language model, empty for the checkpoint itself.
    base_sha256: its `base_fingerprint` when the adapters here were written; empty if unknown.
    edits: what adapters change in the tensors of the pieces. exported: the record of a base that is an Orbax folder.
    """

    config: family.Config
    pieces: tuple[Piece, ...]
    layout: str
    tokenizer_folder: pathlib.Path
    extras: extras_lib.Extras
    lora: configs.LoraConfig | None = None
    base: str = ""
    base_sha256: str = ""
    edits: edits_lib.Edits = dataclasses.field(default_factory=dict)
    exported: export_record.Record | None = None

    @property
    def base_layout(self) -> str:
        """The layout of the language model's files."""
        return next(piece.layout for piece in self.pieces if "text" in piece.parts)


def changes_base(plan: Plan) -> bool:
    """Whether edits change what adapters stand on: language model or tower (`checkpoint.base_fingerprint`)."""
    known = table.parameters_of(plan.config)
    return any(known[id_].part != "projector" for id_, _ in plan.edits)


def match_piece(plan: Plan, piece: Piece) -> tuple[list[layouts.Row], dict[str, list[tensors.Tensor]], list[str]]:
    """Rows of the table for a piece, their stored tensors, and the names left out on purpose."""
    rows = layouts.rows(piece.layout, plan.config, piece.parts, lora=plan.lora, stored_vocab=piece.stored_vocab)
    dropped = (*table.of(plan.config).layouts(plan.config)[piece.layout].dropped, *piece.dropped)
    found = piece.open()
    _check_family(plan, piece, found, dropped)
    if piece.layout == "projector":  # of the pretraining stage, without what a family trains only later
        rows = [row for row in rows if not row.fresh or any(name in found for name in row.names[0])]
    placed, skipped = layouts.match(rows, found, dropped, str(piece.where))
    if plan.config.text.tie_embeddings and parameters.EMBEDDING in placed:
        _check_tied(placed[parameters.EMBEDDING][0], [found[name] for name in skipped if _HEAD.search(name)])
    for row in rows:
        column = placed[row.path]
        for i, tensor in enumerate(column):
            if (edit := plan.edits.get((row.path, i))) is not None:
                column[i] = edits_lib.apply(edit, tensor)
    return rows, placed, skipped


def _check_tied(embedding: tensors.Tensor, heads: Iterable[tensors.Tensor]) -> None:
    """Raise UserError if files of a model whose head is its embedding hold another head: transformers 5 uses it, and
    merge_and_unload of peft leaves such a one."""
    for head in heads:
        if not np.array_equal(head.read(), embedding.read()):
            raise errors.UserError(
                f"{head.file}: {head.name} differs from {embedding.name}, and tie_word_embeddings of config.json says"
                " that they are one: set it to false there and in its text_config, or delete the tensor that is wrong"
            )


def _check_family(plan: Plan, piece: Piece, found: Collection[str], dropped: Collection[str]) -> None:
    """Raise UserError if the files hold an array that only another family has: their config.json is not theirs."""
    family_of = table.of(plan.config)
    own = set(table.parameters_of(plan.config, plan.lora))
    for known in family_of.presets.values():  # with a projector, say, that config.json does not name
        own |= table.parameters_of(known).keys()
    for other in table.FAMILIES:
        sizes = next(iter(other.presets.values()), None)
        if sizes is None or piece.layout not in other.layouts(sizes):
            continue
        for row in layouts.rows(piece.layout, sizes, piece.parts):
            held = [name for names in row.names for name in names if row.path not in own and name in found]
            if held and not any(re.fullmatch(pattern, held[0]) for pattern in dropped):
                raise errors.UserError(
                    f"{piece.where}: tensor {held[0]} is of a {other.name} model, and config.json is of a"
                    f" {family_of.name} model: take the config.json that belongs to these weights"
                )


def refuse(folder: pathlib.Path, **given: str) -> None:
    """Raise UserError if one of these arguments was given: it would have no effect on this kind of folder."""
    for name, value in given.items():
        if value:
            raise errors.UserError(
                f"{folder}: this checkpoint takes no {name}, {value} would not be used; leave it out"
            )
