"""Finds what a checkpoint folder contains and which files hold which part of the model, from names and configs only."""

from __future__ import annotations

from collections.abc import Collection
import dataclasses
import math
import os
import pathlib
import re
from typing import Any, cast

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import components
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import lora as lora_lib
from vlguard_jax.checkpoints import read_config
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.blocks import configs

_TOWER_KEYS = r"model\.vision_tower\..*"
_HF_PICTURES = r"(model\.)?(vision_tower|multi_modal_projector)\..*"
_TEXT = ("text", "head")


@dataclasses.dataclass(frozen=True)
class Piece:
    """Files that hold some parts of the model in one layout. `dropped`: patterns left out besides the layout's own."""

    layout: str
    where: pathlib.Path
    parts: Collection[str]
    stored_vocab: int | None = None
    dropped: tuple[str, ...] = ()

    def open(self) -> dict[str, tensors.Tensor]:
        """List the tensors of the files."""
        return tensors.open_file(self.where) if self.where.is_file() else tensors.open_folder(self.where)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checkpoint's family, sizes and parts.

    base: name of the folder with the language model, empty for the checkpoint itself.
    base_sha256: its `base_fingerprint` when the adapters here were written; empty if unknown.
    """

    config: family.Config
    pieces: tuple[Piece, ...]
    layout: str
    tokenizer_folder: pathlib.Path
    extras: extras_lib.Extras
    lora: configs.LoraConfig | None = None
    base: str = ""
    base_sha256: str = ""

    @property
    def base_layout(self) -> str:
        """The layout of the language model's files."""
        return next(piece.layout for piece in self.pieces if "text" in piece.parts)


def match_piece(plan: Plan, piece: Piece) -> tuple[list[layouts.Row], dict[str, list[tensors.Tensor]], list[str]]:
    """Rows of the table for a piece, their stored tensors, and the names left out on purpose."""
    rows = layouts.rows(piece.layout, plan.config, piece.parts, lora=plan.lora, stored_vocab=piece.stored_vocab)
    dropped = (*table.of(plan.config).layouts(plan.config)[piece.layout].dropped, *piece.dropped)
    found = piece.open()
    _check_family(plan, piece, found, dropped)
    if piece.layout == "projector":  # of the pretraining stage, without what a family trains only later
        rows = [row for row in rows if not row.fresh or any(name in found for name in row.names[0])]
    placed, skipped = layouts.match(rows, found, dropped, str(piece.where))
    return rows, placed, skipped


def _check_family(plan: Plan, piece: Piece, found: Collection[str], dropped: Collection[str]) -> None:
    """Raise UserError if the files hold an array that only another family has: their config.json is not theirs."""
    own = table.parameters_of(plan.config, plan.lora)
    for other in table.FAMILIES:
        sizes = next(iter(other.presets.values()), None)
        if sizes is None or piece.layout not in other.layouts(sizes):
            continue
        for row in layouts.rows(piece.layout, sizes, piece.parts):
            held = [name for names in row.names for name in names if row.path not in own and name in found]
            if held and not any(re.fullmatch(pattern, held[0]) for pattern in dropped):
                raise errors.UserError(
                    f"{piece.where}: tensor {held[0]} is of a {other.name} model, and config.json is of a"
                    f" {table.of(plan.config).name} model: take the config.json that belongs to these weights"
                )


def make_plan(
    folder: pathlib.Path, *, base: str = "", vision_tower: str = "", projector: str = "", as_family: str = ""
) -> Plan:
    """Find what a folder contains and where the rest of the model is.

    Raises:
      UserError: as `load`, except for faults that show only when tensors are listed.
    """
    plan = _plan(folder, base=base, vision_tower=vision_tower, projector=projector, as_family=as_family)
    total = sum(map(math.prod, layouts.tree_shapes(plan.config, plan.lora).values()))
    if total > limits.PARAMETERS:
        raise errors.UserError(
            f"{folder}: its sizes make {total:.1e} parameters, at most {limits.PARAMETERS:.0e} are read: correct"
            " config.json"
        )
    vocabulary.check(plan.tokenizer_folder, plan.config.text.vocab_size, plan.extras)
    return plan


def _plan(
    folder: pathlib.Path, *, base: str = "", vision_tower: str = "", projector: str = "", as_family: str = ""
) -> Plan:
    if not folder.is_dir():
        raise errors.UserError(f"{folder}: a checkpoint is a folder, and this is a file")
    if (folder / "adapter_config.json").is_file():
        refuse(folder, projector=projector, family=as_family)
        return _plan_peft(folder, base, vision_tower)
    found = read_config.read(folder)
    if found.family is None:
        raise errors.UserError(
            f"{folder}: checkpoint of another model type: a vision tower alone; name it as vision_tower"
        )
    if found.layout == "llama":
        refuse(folder, base=base)
        return _plan_llama(folder, found, vision_tower, projector, as_family)
    refuse(folder, family=as_family)
    if found.layout == "llava":
        return _plan_original(folder, found, base, vision_tower, projector)
    refuse(folder, base=base, vision_tower=vision_tower, projector=projector)
    return _plan_hf(folder, found)


def refuse(folder: pathlib.Path, **given: str) -> None:
    """Raise UserError if one of these arguments was given: it would have no effect on this kind of folder."""
    for name, value in given.items():
        if value:
            raise errors.UserError(
                f"{folder}: this checkpoint takes no {name}, {value} would not be used; leave it out"
            )


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


def _plan_hf(folder: pathlib.Path, found: read_config.Found) -> Plan:
    assert found.family is not None
    model, stored = found.family.read_hf(found.values, folder)
    extras = _extras(folder, found.layout, found.values)
    preprocessor, _ = config_json.read_preprocessor(folder)
    if preprocessor:
        extras["preprocessor"] = preprocessor
    dropped = (r"(model\.)?(language_model\.)?lm_head\.weight",) if model.text.tie_embeddings else ()
    piece = Piece(found.layout, folder, (*_TEXT, "vision", "projector"), stored, dropped)
    return Plan(model, (piece,), found.layout, folder, extras)


def _tied(text: configs.TextConfig) -> tuple[str, ...]:
    return (r"lm_head\.weight",) if text.tie_embeddings else ()


def _plan_llama(
    folder: pathlib.Path, found: read_config.Found, vision_tower: str, projector: str, as_family: str
) -> Plan:
    assert found.family is not None
    alone, _ = found.family.read_hf(found.values, folder)
    language = Piece("llama", folder, _TEXT, dropped=_tied(alone.text))
    extras = _extras(folder, "llama", found.values)
    if not vision_tower and not projector:
        refuse(folder, family=as_family)
        return Plan(alone, (language,), "llama", folder, extras)
    if not vision_tower or not projector:
        raise errors.UserError(
            f"{folder}: a language model becomes a LLaVA model only with both vision_tower and projector"
        )
    tower = hub.resolve(vision_tower)
    path = components.projector_file(projector)
    kind = {"mm_projector_type": components.projector_type(path)}
    model = components.composed(as_family, folder)(kind, str(path), alone.text, read_config.of_tower(tower))
    extras |= {"vision_tower": vision_tower, "preprocessor": config_json.read_preprocessor(tower)[0]}
    pieces = (language, Piece("clip", tower, ("vision",)), Piece("projector", path, ("projector",)))
    return Plan(model, pieces, "llama", folder, extras)


def _original_model(
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
) -> Plan:
    if not tensors.has_weights(folder) and (folder / "mm_projector.bin").is_file():
        refuse(folder, projector=projector)
        return _plan_projector_only(folder, found, base, vision_tower)
    refuse(folder, base=base)
    model, tower, extras = _original_model(folder, found, vision_tower, folder)
    keeps_tower = _keeps_tower(folder, found)
    parts = [*_TEXT, *(["vision"] if keeps_tower else []), *([] if projector else ["projector"])]
    # The reference builds a frozen tower from its own folder and ignores the checkpoint's copy (clip_encoder.py).
    dropped = (
        *_tied(model.text),
        *([] if keeps_tower else [_TOWER_KEYS]),
        *([r"model\.mm_projector\..*"] if projector else []),
    )
    pieces = [Piece("llava", folder, parts, dropped=dropped)]
    if not keeps_tower:
        pieces.append(Piece("clip", tower, ("vision",)))
    if projector:
        pieces.append(Piece("projector", components.projector_file(projector), ("projector",)))
    return Plan(model, tuple(pieces), "llava", folder, extras)


def _keeps_tower(folder: pathlib.Path, found: read_config.Found) -> bool:
    return components.keeps_tower(found.values, str(folder / "config.json"))


def _plan_projector_only(folder: pathlib.Path, found: read_config.Found, base: str, vision_tower: str) -> Plan:
    if not base:
        raise errors.UserError(f"{folder}: only a projector is here; name the language model it belongs to as base")
    base_folder = _whole(hub.resolve(base), folder)
    model, tower, extras = _original_model(folder, found, vision_tower, base_folder)
    pieces = (
        _base_piece(base_folder, model),
        Piece("clip", tower, ("vision",)),
        Piece("projector", folder / "mm_projector.bin", ("projector",)),
    )
    return Plan(model, pieces, "projector", _tokenizer_folder(folder, base_folder), extras, base=base)


def _whole(base: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """`base`, the base of `folder`, if it is a whole model: of adapters on adapters only one would be merged."""
    kinds = ((base / "adapter_config.json").is_file(), "adapters"), (export.is_export(base), "an Orbax folder")
    for found, what in kinds:
        if found:
            raise errors.UserError(
                f"{folder}: its base {base} is {what}, where a whole model in LLaVA's, llava-hf's or Llama's layout was"
                " expected; write it so first (python -m vlguard_jax.convert --to llava, which merges adapters) and"
                " name the result as base"
            )
    return base


def _tokenizer_folder(folder: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    return folder if tokenizer_files.has_tokenizer(folder) else base


def _of_pictures(layout: str, model: family.Config) -> tuple[str, ...]:
    """Patterns of the tensors that the files of a whole model of these sizes hold beside its language model's."""
    named = (names for row in layouts.rows(layout, model, ("projector",)) for names in row.names)
    known = (_TOWER_KEYS, r"model\.mm_projector\..*") if layout == "llava" else (_HF_PICTURES,)
    return (*known, *(re.escape(name) for names in named for name in names))


def _base_piece(base: pathlib.Path, model: family.Config, *, tower: bool = False) -> Piece:
    """The language model of a base folder; its projector and tower (if any) are replaced. tower: keep a tower that is
    among its weights."""
    found = read_config.read(base)
    where = str(base / "config.json")
    if found.family is None:
        raise errors.UserError(f"{where}: checkpoint of another model type: a vision tower cannot be the base")
    if found.layout == "llava":
        text = config_json.text_config(found.values, where)
        parts = (*_TEXT, "vision") if tower and _keeps_tower(base, found) else _TEXT
        piece = Piece("llava", base, parts, dropped=(*_of_pictures("llava", model), *_tied(text)))
    else:
        sizes, stored = found.family.read_hf(found.values, base)
        text = sizes.text
        sees = found.family.pictures is not None
        dropped = _of_pictures(found.layout, sizes) if sees else (*_of_pictures("llava", model), *_tied(text))
        piece = Piece(found.layout, base, _TEXT, stored if sees else None, dropped)
    if text != model.text:
        ours, theirs = dataclasses.asdict(model.text), dataclasses.asdict(text)
        key = next(k for k in ours if ours[k] != theirs[k])
        raise errors.UserError(
            f"{where}: the base does not fit: {key} is {theirs[key]}, the adapter was made for {ours[key]}"
        )
    return piece


def _plan_peft(folder: pathlib.Path, base: str, vision_tower: str) -> Plan:
    path = folder / "adapter_config.json"
    adapter = files.read_object(path)
    lora = lora_lib.from_peft(adapter, str(path))
    name = base or _base_name(fields.Fields(adapter, str(path)))
    base_folder = _whole(hub.resolve(base) if base else _find_base(name, folder), folder)
    pieces: list[Piece]
    if (folder / "config.json").is_file():
        found = read_config.read(folder)
        written = fields.Fields(found.values, str(folder / "config.json")).part(family.PROVENANCE)
        base_sha256 = written.text(checkpoint.BASE_SHA256)
        if found.layout != "llava":
            raise errors.UserError(
                f"{folder / 'config.json'}: LLaVA's own config was expected beside an adapter, not {found.layout}"
            )
        model, tower, extras = _original_model(folder, found, vision_tower, base_folder)
        trained = folder / "non_lora_trainables.bin"
        if not trained.is_file():
            raise errors.UserError(f"{trained}: no such file; the projector trained beside the adapter is missing")
        # a tower that was trained with the base is not the one that config.json names
        of_base = _base_piece(base_folder, model, tower=_keeps_tower(folder, found))
        pieces = [of_base, Piece("non_lora", trained, ("projector",))]
        if "vision" not in of_base.parts:
            pieces.append(Piece("clip", tower, ("vision",)))
    else:
        if (folder / "non_lora_trainables.bin").is_file():
            raise errors.UserError(
                f"{folder / 'config.json'}: no such file beside non_lora_trainables.bin; copy LLaVA's config.json"
                " of this training here"
            )
        whole, base_sha256 = _plan(base_folder, vision_tower=vision_tower), ""
        model, pieces, extras = whole.config, list(whole.pieces), whole.extras
        if table.of(model).pictures:
            extras |= {"note": f"{folder} holds no projector: that of its base, {name}, is used"}
    extras |= {"adapter_config": adapter}
    pieces.append(Piece("peft", _adapter_file(folder), ("adapter",)))
    tokenizer_folder = _tokenizer_folder(folder, base_folder)
    return Plan(model, tuple(pieces), "peft", tokenizer_folder, extras, lora, base=name, base_sha256=base_sha256)


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
