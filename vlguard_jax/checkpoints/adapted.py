"""Finds which files hold which part of a model that is a PEFT folder and its base."""

from __future__ import annotations

import os
import pathlib
from typing import cast

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax.checkpoints import adapters
from vlguard_jax.checkpoints import checkpoint
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
    base_folder = whole.checked_base(hub.resolve(base) if base else _find_base(name, folder), folder)
    made = _with_original if (folder / "config.json").is_file() else _with_whole
    model, pieces, extras, base_sha256 = made(folder, base_folder, vision_tower)
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
    result = plans.Plan(
        model,
        tuple(pieces),
        "peft",
        whole.tokenizer_folder(folder, base_folder),
        extras,
        found.lora,
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


Parts = tuple[family.Config, list[plans.Piece], extras_lib.Extras, str]  # the last: fingerprint of the base, or ""


def _with_original(folder: pathlib.Path, base: pathlib.Path, vision_tower: str) -> Parts:
    """Adapters beside LLaVA's config.json, with the projector that was trained."""
    found = read_config.read(folder)
    written = fields.Fields(found.values, str(folder / "config.json")).part(family.PROVENANCE)
    if found.layout != "llava":
        raise errors.UserError(
            f"{folder / 'config.json'}: LLaVA's own config was expected beside an adapter, not {found.layout}"
        )
    model, tower, extras = whole.original_model(folder, found, vision_tower, base)
    trained = folder / "non_lora_trainables.bin"
    if not trained.is_file():
        raise errors.UserError(f"{trained}: no such file; the projector trained beside the adapter is missing")
    # a tower that was trained with the base is not the one that config.json names
    of_base = whole.base_piece(base, model, tower=whole.keeps_tower(folder, found))
    pieces = [of_base, plans.Piece("non_lora", trained, ("projector",))]
    if "vision" not in of_base.parts:
        pieces.append(plans.Piece("clip", tower, ("vision",)))
    return model, pieces, extras, written.text(checkpoint.BASE_SHA256)


def _with_whole(folder: pathlib.Path, base: pathlib.Path, vision_tower: str) -> Parts:
    """Adapters alone, on everything that the base has."""
    if (folder / "non_lora_trainables.bin").is_file():
        raise errors.UserError(
            f"{folder / 'config.json'}: no such file beside non_lora_trainables.bin; copy LLaVA's config.json"
            " of this training here"
        )
    found = whole.plan(base, vision_tower=vision_tower)
    extras, record = found.extras, folder / checkpoint.ADAPTER_RECORD
    if not record.is_file():
        return found.config, list(found.pieces), extras, ""
    written = fields.Fields(files.read_object(record), str(record))
    written.flag("stand_in")
    own = {key: value for key, value in written.values.items() if key != checkpoint.BASE_SHA256}
    extras |= {"provenance": cast(extras_lib.Provenance, own)}
    return found.config, list(found.pieces), extras, written.text(checkpoint.BASE_SHA256)


def _base_name(adapter: fields.Fields) -> str:
    """The base that `adapter_config.json` names, a hub id with its revision."""
    name, revision = adapter.text("base_model_name_or_path"), adapter.text("revision")
    on_the_hub = hub.is_hub_id(name) and "@" not in name and not os.path.isdir(name)
    return f"{name}@{revision}" if revision and on_the_hub else name


def _find_base(name: str, folder: pathlib.Path) -> pathlib.Path:
    local = name.partition("@")[0] if hub.is_hub_id(name) else name
    for above in folder.resolve().parents[:3]:
        if local and os.path.isfile(above / local / "config.json"):
            return above / local
    if not name or not (os.path.isdir(name) or hub.is_hub_id(name)):
        raise errors.UserError(
            f"{folder / 'adapter_config.json'}: its base model {errors.short(name)} is not found; name its"
            " folder as base"
        )
    return hub.resolve(name)


def _adapter_file(folder: pathlib.Path) -> pathlib.Path:
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise errors.UserError(f"{folder}: no adapter_model.safetensors or adapter_model.bin beside adapter_config.json")
