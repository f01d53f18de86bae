"""Finds which files hold which part of a model that is a PEFT folder and its base."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import cast

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax.checkpoints import adapters
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import export_base
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import peft_config
from vlguard_jax.checkpoints import plans
from vlguard_jax.checkpoints import read_config
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import whole
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import family
from vlguard_jax.families import table


def plan(folder: pathlib.Path, base: str, vision_tower: str) -> plans.Plan:
    """What a PEFT folder contains, and where its base is; arguments as in `load.load`.

    Raises:
      UserError: as `adapters.read`; the base is not found, is no whole model or does not fit; or a file is missing.
    """
    path = folder / "adapter_config.json"
    adapter = files.read_object(path)
    config = peft_config.read(adapter, str(path))
    name = base or _base_name(fields.Fields(adapter, str(path)))
    base_folder = hub.resolve(base) if base else _find_base(name, folder)
    beside = read_config.read(folder) if (folder / "config.json").is_file() else None
    if beside is not None and beside.layout == "llava":
        start, base_sha256 = _with_original(folder, beside, base_folder, vision_tower)
    else:
        start, base_sha256 = _with_whole(folder, base_folder, vision_tower)
    if beside is not None:
        _check_beside(folder, beside, start.config, base_folder)
    model, pieces = start.config, list(start.pieces)
    extras: extras_lib.Extras = {**start.extras}
    file = _adapter_file(folder)
    found = adapters.read(config, tensors.open_file(file), model, str(file))
    notes = []
    trained = any(edit.value is not None for (id_, _), edit in found.edits.items() if id_.startswith("projector."))
    if table.of(model).pictures and not trained and not any(piece.layout == "non_lora" for piece in pieces):
        notes.append(f"{folder} holds no projector: that of its base, {name}, is used")
    if found.merged:
        rest = "the others stay adapters" if found.lora else "training goes on with new ones, or in full"
        notes.append(f"{folder}: adapters of the {found.merged} are merged into the weights; {rest}")
    if notes:
        extras |= {"note": "; ".join(notes)}
    if found.lora is not None:
        extras |= {"adapter_config": adapter}
        pieces.append(plans.Piece("peft", file, ("adapter",), listed=found.apart))
    result = dataclasses.replace(
        start,
        pieces=tuple(pieces),
        layout="peft",
        tokenizer_folder=whole.tokenizer_folder(folder, base_folder),
        extras=extras,
        lora=found.lora,
        base=name,
        base_sha256=base_sha256,
        edits=found.edits,
    )
    if base_sha256 and plans.changes_base(result):
        raise errors.UserError(
            f"{file}: changes more than adapters and projector, and the files beside it say that it was written by this"
            " program, which writes no more: take the files that belong together"
        )
    return result


def _with_original(
    folder: pathlib.Path, found: read_config.Found, base: pathlib.Path, vision_tower: str
) -> tuple[plans.Plan, str]:
    """What the adapters beside LLaVA's config.json stand on, with the projector that was trained; and the fingerprint
    of the base, or ""."""
    whole.check_base(base, folder)
    written = fields.Fields(found.values, str(folder / "config.json")).part(family.PROVENANCE)
    model, tower, extras = whole.original_model(folder, found, vision_tower, base)
    trained = folder / "non_lora_trainables.bin"
    if not trained.is_file():
        raise errors.UserError(f"{trained}: no such file; the projector trained beside the adapter is missing")
    # a tower that was trained with the base is not the one that config.json names
    of_base = whole.base_piece(base, model, tower=whole.keeps_tower(folder, found))
    pieces = [of_base, plans.Piece("non_lora", trained, ("projector",))]
    if "vision" not in of_base.parts:
        pieces.append(plans.Piece("clip", tower, ("vision",)))
    return plans.Plan(model, tuple(pieces), "peft", folder, extras), written.text(checkpoint.BASE_SHA256)


def _with_whole(folder: pathlib.Path, base: pathlib.Path, vision_tower: str) -> tuple[plans.Plan, str]:
    """What adapters alone stand on, everything that the base has; and its fingerprint, or ""."""
    if (folder / "non_lora_trainables.bin").is_file():
        raise errors.UserError(
            f"{folder / 'config.json'}: no such file beside non_lora_trainables.bin; copy LLaVA's config.json"
            " of this training here"
        )
    if export.is_export(base):
        plans.refuse(folder, vision_tower=vision_tower)
        found = export_base.plan(base)
    else:
        whole.check_base(base, folder)
        found = whole.plan(base, vision_tower=vision_tower)
    record = folder / checkpoint.ADAPTER_RECORD
    if not record.is_file():
        return found, ""
    written = fields.Fields(files.read_object(record), str(record))
    written.flag("stand_in")
    own = {key: value for key, value in written.values.items() if key != checkpoint.BASE_SHA256}
    extras: extras_lib.Extras = {**found.extras, "provenance": cast(extras_lib.Provenance, own)}
    return dataclasses.replace(found, extras=extras), written.text(checkpoint.BASE_SHA256)


def _check_beside(folder: pathlib.Path, beside: read_config.Found, model: family.Config, base: pathlib.Path) -> None:
    """Raise UserError if a config.json that a trainer has put beside its adapters is not of their base."""
    where = folder / "config.json"
    if beside.layout == "llava":  # compared by whole.base_piece
        return
    if beside.family is not table.of(model):
        raise errors.UserError(
            f"{where}: is of {beside.layout}, and the base {base} is a {table.of(model).name} model; name the base that"
            " these adapters were made for"
        )
    sizes, _ = beside.family.read_hf(beside.values, folder)
    ours, theirs = (dataclasses.asdict(one.text) | {"vocab_size": 0} for one in (sizes, model))
    for key, value in ours.items():
        if value != theirs[key]:
            raise errors.UserError(
                f"{where}: {key} is {value}, and {theirs[key]} in the base {base}; name the base that these adapters"
                " were made for"
            )


def _base_name(adapter: fields.Fields) -> str:
    """The base that `adapter_config.json` names, a hub id with its revision."""
    name, revision = adapter.text("base_model_name_or_path"), adapter.text("revision")
    on_the_hub = hub.is_hub_id(name) and "@" not in name and not os.path.isdir(name)
    return f"{name}@{revision}" if revision and on_the_hub else name


def _find_base(name: str, folder: pathlib.Path) -> pathlib.Path:
    local = name.partition("@")[0] if hub.is_hub_id(name) else name
    for above in folder.resolve().parents[:3]:
        if local and any((above / local / name).is_file() for name in ("config.json", export_record.RECORD)):
            return above / local
    if not name or not (os.path.isdir(name) or hub.is_hub_id(name)):
        raise errors.UserError(
            f"{folder / 'adapter_config.json'}: its base model {errors.short(name)} is not found; name its"
            " folder as base"
        )
    try:
        return hub.resolve(name)
    except errors.UserError as e:
        raise errors.UserError(f"{e}; {folder / 'adapter_config.json'} names it, name your copy of it as base") from e


def _adapter_file(folder: pathlib.Path) -> pathlib.Path:
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise errors.UserError(f"{folder}: no adapter_model.safetensors or adapter_model.bin beside adapter_config.json")
