"""The ids and positions of a model: a checkpoint's are checked before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.chat import added_tokens
from vlguard_jax.families.chat import json_kind
from vlguard_jax.families.chat import json_tokenizer
from vlguard_jax.families.chat import piece_json
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

NAMED = ("bos_token_id", "eos_token_id", "pad_token_id")
CONFIG, GENERATION = "config.json", "generation_config.json"


def check(folder: pathlib.Path, rows: int, extras: extras_lib.Extras) -> None:
    """Check the tokenizer in `folder`, if there is one, and the ids named in the configs (`Checkpoint.extras`). rows:
    V.

    Raises:
      UserError: an id has no row in the model; both sizes are named.
    """
    if any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        try:
            tokenizer_lib.check_rows(tokenizer_lib.read(folder), rows)
        except piece_json.OtherKindError:  # which other programs read
            _check_other(folder / "tokenizer.json", rows)
    config = extras.get("config") or {}
    sizes = [part.get("vocab_size") for part in (config, config.get("text_config") or {})]
    stored = max([rows, *(size for size in sizes if type(size) is int)])
    for file, key, value in _named(extras):
        # never an index here; -1 in Llama's first configs, and in llava-hf not always one of the rows
        padding = key == "pad_token_id"
        lowest, behind = (-1, len(added_tokens.HF_ONLY)) if padding else (0, 0)
        for id_ in value if isinstance(value, list) else [value]:
            if type(id_) is not int or not lowest <= id_ < stored + behind:
                raise errors.UserError(
                    f"{folder}: {key}={errors.short(id_)} of {file} is not one of the model's {stored:,} rows:"
                    " correct it"
                )


def answering(model: checkpoint.Checkpoint) -> tokenizer_lib.Tokenizer:
    """The tokenizer of a model that is to generate.

    In the Llama-2 family its end token must be the one in generation_config.json, or else in config.json, at which
    other programs stop. Chat models with a tokenizer of another kind have several: these end an answer, too.

    Raises:
      UserError: it is another, or the tokenizer cannot be read.
    """
    found = tokenizer_lib.load_tokenizer(model.tokenizer_folder)
    named = {file: value for file, key, value in _named(model.extras) if key == "eos_token_id"}
    file = GENERATION if GENERATION in named else CONFIG
    value = named.get(file, found.eos_id)
    ends = value if isinstance(value, list) else [value]  # of the model's rows (`check`)
    if isinstance(found, json_tokenizer.JsonTokenizer):
        return found.stopping_at(ends)
    if ends != list(found.stop_ids):
        raise errors.UserError(
            f"{found.folder}: answers end with {found.eos_text}, token {found.eos_id}, by the tokenizer, and {file} has"
            f" eos_token_id={errors.short(value)}: make the files agree with what the model was trained with"
        )
    return found


def context(extras: extras_lib.Extras) -> int | None:
    """Positions that a model was made for, from `Checkpoint.extras`; None without a config.

    Linear scaling multiplies max_position_embeddings; Vicuna's long-context models leave it unchanged and set
    max_sequence_length.

    Raises:
      UserError: one of them is not a positive number within the limits.
    """
    config = extras.get("config")
    if not config:
        return None
    where = f"config.json of {extras.get('source', 'the model')}"
    text = fields.Fields(config.get("text_config") or config, where)
    positions = config_json.positions(text)
    _, scaling = config_json.rope(text.values, where)
    stretched = int(positions * scaling.factor) if scaling is not None and scaling.kind == "linear" else positions
    return max(stretched, text.size("max_sequence_length", 1, most=limits.POSITIONS))


def _named(extras: extras_lib.Extras) -> Iterator[tuple[str, str, Any]]:
    """(file, key, value) of the special ids in the configs."""
    config = extras.get("config") or {}
    places = (
        (CONFIG, config),
        (CONFIG, config.get("text_config") or {}),
        (GENERATION, extras.get("generation_config") or {}),
    )
    for file, place in places:
        for key in NAMED:
            if place.get(key) is not None:
                yield file, key, place[key]


def _check_other(path: pathlib.Path, rows: int) -> None:
    """Check a tokenizer.json of a kind that only other programs read, but which is exported with the model."""
    found = files.read_object(path)
    ids: dict[str, Any] = {**json_kind.vocabulary(found, path)}
    added = found.get("added_tokens") or ()
    if not isinstance(added, list | tuple) or not all(isinstance(token, dict) for token in added):
        raise errors.UserError(f"{path}: added_tokens is no list of tokens: copy it again, or leave it out")
    ids |= {str(token.get("content")): token.get("id") for token in added}
    for text, id_ in ids.items():
        if text not in added_tokens.HF_ONLY and (type(id_) is not int or not 0 <= id_ < rows):
            raise errors.UserError(
                f"{path}: the token {errors.short(text)} has the id {errors.short(id_)}, the model {rows:,} rows: copy"
                " the tokenizer that this model was trained with"
            )
