"""Questions that cannot be asked: a picture cannot be read, or prompt and answer exceed the model's context.

They are found before the first answer, and end the run or are left out, counted and listed, as the config says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import types
from vlguard_jax.data import picture_check
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import questions as questions_lib
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib

SKIPPED = "skipped.jsonl"


@dataclasses.dataclass(frozen=True)
class BadPicture:
    """A question that is not asked. picture: the first that cannot be read, its path inside the benchmark. reason: why,
    in one line."""

    subset: str
    item_id: str
    picture: str
    reason: str


@dataclasses.dataclass(frozen=True)
class TooLong:
    """A question that is not asked. prompt_tokens: includes its picture. context: positions of the model."""

    subset: str
    item_id: str
    prompt_tokens: int
    max_new: int
    context: int


Skipped = BadPicture | TooLong


def split(
    config: settings_lib.EvalConfig,
    model: model_lib.Model,
    items: Sequence[benchmark_lib.Item],
    from_first: Callable[[Callable[[], Any]], Any] = lambda make: make(),
) -> tuple[list[questions_lib.Question], list[Skipped]]:
    """(questions to ask, those left out).

    With `config.benchmark.on_bad_picture` "skip" all pictures are decoded, those too that a control does not show. Else
    `check_pictures` is to be called with the questions that are still to be answered.

    Args:
      config, model: of the evaluation.
      items: what is asked.
      from_first: calls a function in the first of several processes and returns its JSON values in each.

    Raises:
      UserError: as `questions.ask`; a question is too long and `config.benchmark.on_long_prompt` is "error"; or a
        subset has no question left.
    """
    bad: dict[str, str] = {}
    if config.benchmark.on_bad_picture == "skip":
        bad = from_first(lambda: _unreadable(config, model, items))
    kept, skipped = _readable(items, bad)
    questions, too_long = _fitting(config, model, questions_lib.ask(config, model, kept))
    return questions, [*skipped, *too_long]


def _unreadable(
    config: settings_lib.EvalConfig, model: model_lib.Model, items: Sequence[benchmark_lib.Item]
) -> dict[str, str]:
    """path -> why, of the pictures that are there and cannot be used."""
    found = benchmark_lib.unreadable(items, model.sizes if model.sees else None, config.model.image_mode)
    return {str(path): reason for path, reason in found.items() if reason != picture_check.MISSING}


def _readable(
    items: Sequence[benchmark_lib.Item], bad: dict[str, str]
) -> tuple[list[benchmark_lib.Item], list[BadPicture]]:
    kept, skipped = [], []
    for item in items:
        first = next((picture for picture in item.pictures if str(picture.path) in bad), None)
        if first is None:
            kept.append(item)
        else:
            skipped.append((first.path, BadPicture(item.subset, item.id, first.name, bad[str(first.path)])))
    left = {item.subset for item in kept}
    for path, one in skipped:
        if one.subset not in left:
            raise errors.UserError(
                f"{path}: not a readable picture ({one.reason}), and no question of {one.subset} has one: leave the"
                " subset out of config.benchmark.subsets"
            )
    return kept, [one for _, one in skipped]


def check_pictures(
    config: settings_lib.EvalConfig, model: model_lib.Model, questions: Sequence[questions_lib.Question]
) -> None:
    """Decode every picture that the questions show, unless `split` did, so that a bad one is found before the first
    answer.

    Raises:
      UserError: some cannot be used; their number, and the first with its record.
    """
    if config.benchmark.on_bad_picture == "skip":
        return
    shown = [q.item for q in questions if q.image_mode == "real" and model.sees is not None]
    bad = benchmark_lib.unreadable(shown, model.sizes, config.model.image_mode)
    if bad:
        of = {picture.path: item for item in reversed(shown) for picture in item.pictures}
        path, reason = next(iter(bad.items()))
        raise errors.UserError(
            f"{len(bad)} of {len(of)} pictures cannot be used, first {path}: not a readable picture"
            f" (picture of {of[path].subset} item {of[path].id}): {reason}; or set"
            f" {questions_lib.SKIP_PICTURES}"
        )


def _fitting(
    config: settings_lib.EvalConfig, model: model_lib.Model, questions: Sequence[questions_lib.Question]
) -> tuple[list[questions_lib.Question], list[TooLong]]:
    if model.context is None:
        return list(questions), []
    new = config.decode.max_new_tokens
    fitting, skipped = [], []
    for question in questions:
        taken = tokens(question, model)
        if taken + new <= model.context:
            fitting.append(question)
        else:
            skipped.append(TooLong(question.item.subset, question.item.id, taken, new, model.context))
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
    """Write the list of skipped questions to `folder`, one JSON line each, and return notices; no file if none is
    skipped."""
    path = folder / SKIPPED
    if not skipped:
        path.unlink(missing_ok=True)
        return []
    files.write_text(path, "".join(json.dumps({"schema": 1, **dataclasses.asdict(one)}) + "\n" for one in skipped))
    notices = []
    if bad := [one for one in skipped if isinstance(one, BadPicture)]:
        notices.append(
            f"questions left out whose pictures cannot be read: {len(bad):,}, first {bad[0].picture}"
            f" ({bad[0].reason}), see {path}"
        )
    if n := len(skipped) - len(bad):
        notices.append(f"{n:,} questions are too long for the model and are left out, see {path}")
    return notices


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
