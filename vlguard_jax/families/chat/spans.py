"""From a conversation to token ids and labels by a chat template in Jinja: what lies in an answer's span is learnt."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
import functools
import itertools
import re
from typing import NamedTuple

import numpy as np

from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

_SHOWN = 40  # characters of what stands where an end token is missing


def tokenize(
    turns: Sequence[types.Turn],
    n_images: int,
    tokenizer: tokenizer_lib.Tokenizer,
    template: jinja_template.JinjaTemplate,
    max_len: int,
) -> types.Tokens:
    """Ids and labels of one conversation before image expansion, truncated at `max_len` if it has no pictures.

    The tokens learnt are those of the answers and of the end token behind each, with the white space between. A token
    across an answer's border is not learnt.

    Raises:
      UserError: as `JinjaTemplate.render`, or there is no end token behind an answer.
    """
    rendered = template.render(turns, n_images)
    special = _specials(tokenizer)
    borders: list[int] = []
    for start, end in rendered.answers:
        borders += [start, _end(rendered.text, end, special, template)]
    ids, places = _encode(rendered.text, tokenizer, template, borders)
    all_ids = np.asarray(ids, np.int32)
    labels = np.full(len(ids), types.IGNORE_LABEL, np.int32)
    for (first, _), (before, across) in zip(places[::2], places[1::2], strict=True):
        learnt = slice(first, before - across)
        labels[learnt] = all_ids[learnt]
    crossing = len({before - 1 - i for before, across in places for i in range(across)})
    asked, answered = (
        int(any(special.any.search(turn.text) for turn in turns if (turn.role == "gpt") is by_model))
        for by_model in (False, True)
    )
    stop = None if n_images else max_len
    return types.Tokens(all_ids[:stop], labels[:stop], noted=types.Noted(crossing, asked, answered))


def tokenize_prompt(
    question: str,
    n_images: int,
    tokenizer: tokenizer_lib.Tokenizer,
    template: jinja_template.JinjaTemplate,
    before: Sequence[types.Round] = (),
) -> list[int]:
    """Ids of the prompt that asks `question` about `n_images` pictures, `IMAGE_TOKEN` for each. before: the
    conversation so far.

    Raises:
      UserError: as `JinjaTemplate.prompt`.
    """
    return _encode(template.prompt(question, n_images, before), tokenizer, template, [])[0]


def check(tokenizer: tokenizer_lib.Tokenizer, template: jinja_template.JinjaTemplate) -> None:
    """Check that a model can be trained with the template.

    Raises:
      UserError: it fails for two rounds of plain text, or has no end token behind an answer.
    """
    turns = [types.Turn(role, text) for role, text in zip(("human", "gpt") * 2, "abcd", strict=True)]
    tokenize(turns, 0, tokenizer, template, 2**20)


def end_id(tokenizer: tokenizer_lib.Tokenizer, template: jinja_template.JinjaTemplate) -> int | None:
    """The token that stands behind an answer, which a model trained with the template ends its own with; None if there
    is none, or the template takes no answer."""
    try:
        rendered = template.render([types.Turn("human", "a"), types.Turn("gpt", "b")], 0)
    except jinja_template.RefusedError:
        return None
    found = _specials(tokenizer).end.match(rendered.text, rendered.answers[0][1])
    if found is None:
        return None
    return next(token.id for text, token in tokenizer.added.items() if text in (found[1], found[1].rstrip()))


def written_out(text: str, tokenizer: tokenizer_lib.Tokenizer) -> bool:
    """Whether a text holds that of a special token, which it becomes."""
    return _specials(tokenizer).any.search(text) is not None


class _Specials(NamedTuple):
    """any: a special token's text. end: one, with the white space in front of it and what it takes in behind it."""

    any: re.Pattern[str]
    end: re.Pattern[str]


@functools.lru_cache(maxsize=8)
def _specials(tokenizer: tokenizer_lib.Tokenizer) -> _Specials:
    tokens = sorted((token for token in tokenizer.added.values() if token.special), key=lambda token: -len(token.text))
    alternatives = "|".join(re.escape(token.text) for token in tokens) or "(?!)"
    # Phi-3's end tokens take in the line break behind them.
    ends = "|".join(re.escape(token.text) + r"\s*" * token.rstrip for token in tokens) or "(?!)"
    return _Specials(re.compile(alternatives), re.compile(rf"\s*({ends})"))


def _end(text: str, at: int, special: _Specials, template: jinja_template.JinjaTemplate) -> int:
    """Where the end token ends that is behind an answer that ends at `at`."""
    if (found := special.end.match(text, at)) is None:
        raise errors.UserError(
            f"{template.where} has no end token behind an answer but {errors.short(text[at : at + _SHOWN])}, so that a"
            " model trained with it never learns to stop: take another template with config.model.template"
        )
    return found.end()


def _encode(
    text: str, tokenizer: tokenizer_lib.Tokenizer, template: jinja_template.JinjaTemplate, borders: list[int]
) -> tuple[list[int], list[tuple[int, int]]]:
    """As `encode_with_borders`, with `IMAGE_TOKEN` where a picture is.

    As transformers: the template writes the begin token itself; only its processors of pictures put one in front of a
    text that has none.
    """
    if not template.pictures:
        return tokenizer.encode_with_borders(text, borders)
    if (token := tokenizer.added.get(template.image)) is not None:
        ids, places = tokenizer.encode_with_borders(text, borders)
        ids = [types.IMAGE_TOKEN if id_ == token.id else id_ for id_ in ids]
    else:
        ids, places = _encode_around(text, tokenizer, template.image, borders)
    if tokenizer.bos_id is not None and not text.startswith(tokenizer.special.get("bos_token", "")):
        ids, places = [tokenizer.bos_id, *ids], [(before + 1, across) for before, across in places]
    return ids, places


def _encode_around(
    text: str, tokenizer: tokenizer_lib.Tokenizer, image: str, borders: list[int]
) -> tuple[list[int], list[tuple[int, int]]]:
    """The same with a tokenizer that leaves out the token for pictures (added_tokens.HF_ONLY): another special token
    takes its place in the text, so that the text around it is encoded as beside one."""
    other = next(one for one in tokenizer.added.values() if one.special and not (one.lstrip or one.rstrip))
    parts = text.split(image)
    shown = list(itertools.accumulate((len(part) + len(image) for part in parts[:-2]), initial=len(parts[0])))
    shown = shown[: len(parts) - 1]  # where the pictures are
    marks = sorted([*shown, *borders])
    moved = [mark + (len(other.text) - len(image)) * bisect.bisect_left(shown, mark) for mark in marks]
    ids, places = tokenizer.encode_with_borders(other.text.join(parts), moved)
    of = dict(zip(marks, places, strict=True))
    for mark in shown:
        ids[of[mark][0]] = types.IMAGE_TOKEN
    return ids, [of[border] for border in borders]
