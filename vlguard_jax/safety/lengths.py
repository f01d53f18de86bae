"""Finds, before the first answer, prompts that together with their answers exceed the model's context."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import pathlib

import numpy as np

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import types
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import questions as questions_lib

SKIPPED = "skipped.jsonl"


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A question that is not asked. prompt_tokens: includes its picture. context: positions of the model."""

    subset: str
    item_id: str
    prompt_tokens: int
    max_new: int
    context: int


def split(
    config: settings_lib.EvalConfig, model: model_lib.Model, questions: Sequence[questions_lib.Question]
) -> tuple[list[questions_lib.Question], list[Skipped]]:
    """(questions to ask, those left out because they do not fit).

    Raises:
      UserError: one does not fit and `config.benchmark.on_long_prompt` is "error", or a subset has none that fits.
    """
    if model.context is None:
        return list(questions), []
    new = config.decode.max_new_tokens
    fitting, skipped = [], []
    for question in questions:
        taken = tokens(question, model)
        if taken + new <= model.context:
            fitting.append(question)
        else:
            skipped.append(Skipped(question.item.subset, question.item.id, taken, new, model.context))
    left = {q.item.subset for q in fitting}
    for one in skipped:
        what = (
            f"{one.subset} item {errors.short(one.item_id)}: {one.prompt_tokens:,} tokens and up to {new:,} of the"
            f" answer (config.decode.max_new_tokens), and the model has {model.context:,} positions"
            " (max_position_embeddings)"
        )
        if config.benchmark.on_long_prompt == "error":
            raise errors.UserError(
                f"{what}, as with {len(skipped):,} of {len(questions):,} questions; shorten or remove them, lower"
                " max_new_tokens, or set"
                ' config.benchmark.on_long_prompt="skip" to leave them out, counted and listed'
            )
        if one.subset not in left:
            raise errors.UserError(
                f"{what}; no question of {one.subset} fits: leave the subset out of config.benchmark.subsets"
            )
    return fitting, skipped


def tokens(question: questions_lib.Question, model: model_lib.Model) -> int:
    """Tokens of the prompt with its pictures. If one cannot be opened, each counts as one token; `check_pictures`
    reports it."""
    places = int(np.count_nonzero(question.ids == types.IMAGE_TOKEN))
    if not places or model.sees is None:
        return len(question.ids)
    sizes: list[types.Size] | None = [types.Size(1, 1)] * places
    if model.sees.sized:
        sizes = questions_lib.picture_sizes(question, model)
    if sizes is None:
        return len(question.ids)
    slots = sum(extent.slots for extent in model.sees.extents(model.sizes, sizes))
    return len(question.ids) - places + slots


def write(folder: pathlib.Path, skipped: Sequence[Skipped]) -> list[str]:
    """Write the list of skipped questions to `folder`, one JSON line each, and return a notice; no file if none is
    skipped."""
    if not skipped:
        (folder / SKIPPED).unlink(missing_ok=True)
        return []
    files.write_text(
        folder / SKIPPED, "".join(json.dumps({"schema": 1, **dataclasses.asdict(one)}) + "\n" for one in skipped)
    )
    return [f"{len(skipped):,} questions are too long for the model and are left out, see {folder / SKIPPED}"]


def read(folder: pathlib.Path) -> set[tuple[str, str]]:
    """(subset, id) of what an evaluation in `folder` left out.

    Raises:
      UserError: the list is broken.
    """
    path = folder / SKIPPED
    if not path.exists():
        return set()
    try:
        lines = [files.parse_json(line, str(path)) for line in files.read_bytes(path).splitlines()]
        return {(line["subset"], line["item_id"]) for line in lines}
    except (KeyError, TypeError) as e:
        raise errors.UserError(f"{path}: not a list of skipped questions; restore it, or evaluate again") from e
