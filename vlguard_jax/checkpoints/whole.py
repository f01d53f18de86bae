"""Finds which files of a folder with a whole model, or with a projector, hold which part of it, from names and configs
only."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any, cast

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import components
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import plans
from vlguard_jax.checkpoints import read_config
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import family
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.blocks import configs

_TOWER_KEYS = r"model\.vision_tower\..*"
_HF_PICTURES = r"(model\.)?(vision_tower|multi_modal_projector)\..*"
_TEXT = ("text", "head")


def plan(
    folder: pathlib.Path, *, base: str = "", vision_tower: str = "", projector: str = "", as_family: str = ""
) -> plans.Plan:
    """What a folder without adapters contains and where the rest of the model is; arguments as in `load.load`.

    Raises:
      UserError: as `load`, except for faults that show only when tensors are listed.
    """
    found = read_config.read(folder)
    if found.family is None:
        raise errors.UserError(
            f"{folder}: checkpoint of another model type: a vision tower alone; name it as vision_tower"
        )
    if found.layout == "llama":
        plans.refuse(folder, base=base)
        return _plan_llama(folder, found, vision_tower, projector, as_family)
    plans.refuse(folder, family=as_family)
    if found.layout == "llava":
        return _plan_original(folder, found, base, vision_tower, projector)
    plans.refuse(folder, base=base, vision_tower=vision_tower, projector=projector)
    return _plan_hf(folder, found)


def _extras(folder: pathlib.Path, kind: str, config: dict[str, Any]) -> extras_lib.Extras:
    extras: extras_lib.Extras = {"kind": kind, "config": config}
    if isinstance(config.get(family.PROVENANCE), dict):
        of_the_folder = (checkpoint.BASE_SHA256, family.VOCAB_SIZE)
        own = {key: value for key, value in config[family.PROVENANCE].items() if key not in of_the_folder}
        if own:
            extras["provenance"] = cast(extras_lib.Provenance, own)
    if (folder / "generation_config.json").is_file():
        extras["generation_config"] = files.read_object(folder / "generation_config.json")
    return extras


def _plan_hf(folder: pathlib.Path, found: read_config.Found) -> plans.Plan:
    assert found.family is not None
    model, stored = found.family.read_hf(found.values, folder)
    extras = _extras(folder, found.layout, found.values)
    preprocessor, _ = config_json.read_preprocessor(folder)
    if preprocessor:
        extras["preprocessor"] = preprocessor
    dropped = (r"(model\.)?(language_model\.)?lm_head\.weight",) if model.text.tie_embeddings else ()
    piece = plans.Piece(found.layout, folder, (*_TEXT, "vision", "projector"), stored, dropped)
    return plans.Plan(model, (piece,), found.layout, folder, extras)


def _tied(text: configs.TextConfig) -> tuple[str, ...]:
    return (r"lm_head\.weight",) if text.tie_embeddings else ()


def _plan_llama(
    folder: pathlib.Path, found: read_config.Found, vision_tower: str, projector: str, as_family: str
) -> plans.Plan:
    assert found.family is not None
    alone, _ = found.family.read_hf(found.values, folder)
    language = plans.Piece("llama", folder, _TEXT, dropped=_tied(alone.text))
    extras = _extras(folder, "llama", found.values)
    if not vision_tower and not projector:
        plans.refuse(folder, family=as_family)
        return plans.Plan(alone, (language,), "llama", folder, extras)
    if not vision_tower or not projector:
        raise errors.UserError(
            f"{folder}: a language model becomes a LLaVA model only with both vision_tower and projector"
        )
    tower = hub.resolve(vision_tower)
    path = components.projector_file(projector)
    kind = {"mm_projector_type": components.projector_type(path)}
    model = components.composed(as_family, folder)(kind, str(path), alone.text, read_config.of_tower(tower))
    extras |= {"vision_tower": vision_tower, "preprocessor": config_json.read_preprocessor(tower)[0]}
    pieces = (language, plans.Piece("clip", tower, ("vision",)), plans.Piece("projector", path, ("projector",)))
    return plans.Plan(model, pieces, "llama", folder, extras)


def original_model(
    folder: pathlib.Path, found: read_config.Found, vision_tower: str, beside: pathlib.Path
) -> tuple[family.Config, pathlib.Path, extras_lib.Extras]:
    """(sizes, tower folder, extras) of a folder with LLaVA's own config.json; the tower may also be next to
    `beside`."""
    where, config = str(folder / "config.json"), found.values
    assert found.family is not None and found.family.check_original and found.family.read_original
    found.family.check_original(config, where)
    known = fields.Fields(config, where)
    name = known.text("mm_vision_tower", known.text("vision_tower"))
    if not name and not vision_tower:
        raise errors.UserError(f"{where}: no mm_vision_tower named here; give vision_tower")
    tower = hub.resolve(vision_tower) if vision_tower else components.find_tower(name, (folder, beside))
    vision = read_config.of_tower(tower, config.get("mm_vision_select_layer", -2))
    if known.size("mm_hidden_size", vision.width) != vision.width:
        raise errors.UserError(
            f"{tower}: this tower's width is {vision.width}, but {where} has mm_hidden_size={config['mm_hidden_size']}"
        )
    model = found.family.read_original(config, where, config_json.text_config(config, where), vision)
    extras = _extras(folder, "llava", config)
    extras |= {"vision_tower": name or vision_tower, "preprocessor": config_json.read_preprocessor(tower)[0]}
    return model, tower, extras


def _plan_original(
    folder: pathlib.Path, found: read_config.Found, base: str, vision_tower: str, projector: str
) -> plans.Plan:
    if not tensors.has_weights(folder) and (folder / "mm_projector.bin").is_file():
        plans.refuse(folder, projector=projector)
        return _plan_projector_only(folder, found, base, vision_tower)
    plans.refuse(folder, base=base)
    model, tower, extras = original_model(folder, found, vision_tower, folder)
    with_tower = keeps_tower(folder, found)
    parts = [*_TEXT, *(["vision"] if with_tower else []), *([] if projector else ["projector"])]
    # The reference builds a frozen tower from its own folder and ignores the checkpoint's copy (clip_encoder.py).
    dropped = (
        *_tied(model.text),
        *([] if with_tower else [_TOWER_KEYS]),
        *([r"model\.mm_projector\..*"] if projector else []),
    )
    pieces = [plans.Piece("llava", folder, parts, dropped=dropped)]
    if not with_tower:
        pieces.append(plans.Piece("clip", tower, ("vision",)))
    if projector:
        pieces.append(plans.Piece("projector", components.projector_file(projector), ("projector",)))
    return plans.Plan(model, tuple(pieces), "llava", folder, extras)


def keeps_tower(folder: pathlib.Path, found: read_config.Found) -> bool:
    """Whether the weights of a folder in LLaVA's own layout include the tower, because it was trained."""
    return components.keeps_tower(found.values, str(folder / "config.json"))


def _plan_projector_only(folder: pathlib.Path, found: read_config.Found, base: str, vision_tower: str) -> plans.Plan:
    if not base:
        raise errors.UserError(f"{folder}: only a projector is here; name the language model it belongs to as base")
    base_folder = hub.resolve(base)
    check_base(base_folder, folder)
    model, tower, extras = original_model(folder, found, vision_tower, base_folder)
    pieces = (
        base_piece(base_folder, model),
        plans.Piece("clip", tower, ("vision",)),
        plans.Piece("projector", folder / "mm_projector.bin", ("projector",)),
    )
    return plans.Plan(model, pieces, "projector", tokenizer_folder(folder, base_folder), extras, base=base)


def check_base(base: pathlib.Path, folder: pathlib.Path) -> None:
    """Raise UserError unless `base`, the base of `folder`, is a whole model: of adapters on adapters only one would be
    merged."""
    kinds = ((base / "adapter_config.json").is_file(), "adapters"), (export.is_export(base), "an Orbax folder")
    for found, what in kinds:
        if found:
            raise errors.UserError(
                f"{folder}: its base {base} is {what}, where a whole model in LLaVA's, llava-hf's or Llama's layout was"
                " expected; write it so first (python -m vlguard_jax.convert --to llava, which merges adapters) and"
                " name the result as base"
            )


def tokenizer_folder(folder: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    return folder if tokenizer_files.has_tokenizer(folder) else base


def _of_pictures(layout: str, model: family.Config) -> tuple[str, ...]:
    """Patterns of the tensors that the files of a whole model of these sizes hold beside its language model's."""
    named = (names for row in layouts.rows(layout, model, ("projector",)) for names in row.names)
    known = (_TOWER_KEYS, r"model\.mm_projector\..*") if layout == "llava" else (_HF_PICTURES,)
    return (*known, *(re.escape(name) for names in named for name in names))


def base_piece(base: pathlib.Path, model: family.Config, *, tower: bool = False) -> plans.Piece:
    """The language model of a base folder; its projector and tower (if any) are replaced. tower: keep a tower that is
    among its weights."""
    found = read_config.read(base)
    where = str(base / "config.json")
    if found.family is None:
        raise errors.UserError(f"{where}: checkpoint of another model type: a vision tower cannot be the base")
    if found.layout == "llava":
        text = config_json.text_config(found.values, where)
        parts = (*_TEXT, "vision") if tower and keeps_tower(base, found) else _TEXT
        piece = plans.Piece("llava", base, parts, dropped=(*_of_pictures("llava", model), *_tied(text)))
    else:
        sizes, stored = found.family.read_hf(found.values, base)
        text = sizes.text
        sees = found.family.pictures is not None
        dropped = _of_pictures(found.layout, sizes) if sees else (*_of_pictures("llava", model), *_tied(text))
        piece = plans.Piece(found.layout, base, _TEXT, stored if sees else None, dropped)
    if text != model.text:
        ours, theirs = dataclasses.asdict(model.text), dataclasses.asdict(text)
        key = next(k for k in ours if ours[k] != theirs[k])
        raise errors.UserError(
            f"{where}: the base does not fit: {key} is {theirs[key]}, the adapter was made for {ours[key]}"
        )
    return piece
