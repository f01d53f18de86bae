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
    spans = [(start, _end(rendered.text, end, special, template)) for start, end in rendered.answers]
    ids, offsets = _encode(rendered.text, tokenizer, template)
    learnt, crossing = _inside(offsets, spans)
    all_ids = np.asarray(ids, np.int32)
    labels = np.full(len(ids), types.IGNORE_LABEL, np.int32)
    for first, behind in learnt:
        labels[first:behind] = all_ids[first:behind]
    asked, answered = (
        int(any(special.any.search(turn.text) for turn in turns if (turn.role == "gpt") is by_model))
        for by_model in (False, True)
    )
    stop = None if n_images else max_len
    return types.Tokens(all_ids[:stop], labels[:stop], noted=types.Noted(crossing, asked, answered))


def tokenize_prompt(
    question: str, n_images: int, tokenizer: tokenizer_lib.Tokenizer, template: jinja_template.JinjaTemplate
) -> list[int]:
    """Ids of the prompt that asks `question` about `n_images` pictures, `IMAGE_TOKEN` for each.

    Raises:
      UserError: as `JinjaTemplate.prompt`.
    """
    return _encode(template.prompt(question, n_images), tokenizer, template)[0]


def check(tokenizer: tokenizer_lib.Tokenizer, template: jinja_template.JinjaTemplate) -> None:
    """Check that a model can be trained with the template.

    Raises:
      UserError: it fails for two rounds of plain text, or has no end token behind an answer.
    """
    turns = [types.Turn(role, text) for role, text in zip(("human", "gpt") * 2, "abcd", strict=True)]
    tokenize(turns, 0, tokenizer, template, 2**20)


class _Specials(NamedTuple):
    """any: a special token's text. end: one, with the white space in front of it."""

    any: re.Pattern[str]
    end: re.Pattern[str]


@functools.lru_cache(maxsize=8)
def _specials(tokenizer: tokenizer_lib.Tokenizer) -> _Specials:
    texts = sorted((text for text, token in tokenizer.added.items() if token.special), key=len, reverse=True)
    alternatives = "|".join(map(re.escape, texts)) or "(?!)"
    return _Specials(re.compile(alternatives), re.compile(rf"\s*(?:{alternatives})"))


def _end(text: str, at: int, special: _Specials, template: jinja_template.JinjaTemplate) -> int:
    """Where the end token ends that is behind an answer that ends at `at`."""
    if (found := special.end.match(text, at)) is None:
        raise errors.UserError(
            f"{template.where} has no end token behind an answer but {errors.short(text[at : at + _SHOWN])}, so that a"
            " model trained with it never learns to stop: take another template with config.model.template"
        )
    return found.end()


def _encode(
    text: str, tokenizer: tokenizer_lib.Tokenizer, template: jinja_template.JinjaTemplate
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids, with `IMAGE_TOKEN` where a picture is, and the characters of each.

    As transformers: the template writes the begin token itself; only its processors of pictures put one in front of a
    text that has none.
    """
    if not template.pictures:
        return tokenizer.encode_with_offsets(text)
    if (token := tokenizer.added.get(template.image)) is not None:
        ids, offsets = tokenizer.encode_with_offsets(text)
        ids = [types.IMAGE_TOKEN if id_ == token.id else id_ for id_ in ids]
    else:
        ids, offsets = _encode_around(text, tokenizer, template.image)
    if tokenizer.bos_id is not None and not text.startswith(tokenizer.special.get("bos_token", "")):
        ids, offsets = [tokenizer.bos_id, *ids], [(0, 0), *offsets]
    return ids, offsets


def _encode_around(
    text: str, tokenizer: tokenizer_lib.Tokenizer, image: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """The same with a tokenizer that leaves out the token for pictures (added_tokens.HF_ONLY): another special token
    takes its place in the text, so that the text around it is encoded as beside one."""
    other = next(one for one in tokenizer.added.values() if one.special and not (one.lstrip or one.rstrip))
    width, parts = len(other.text), text.split(image)
    starts = [end - width for end in itertools.accumulate(len(part) + width for part in parts[:-1])]
    ids, offsets = tokenizer.encode_with_offsets(other.text.join(parts))
    shown = {(start, start + width) for start in starts}
    ids = [types.IMAGE_TOKEN if place in shown else id_ for id_, place in zip(ids, offsets, strict=True)]

    def back(place: int) -> int:
        return place + (len(image) - width) * bisect.bisect_left(starts, place)

    return ids, [(back(first), back(end)) for first, end in offsets]


def _inside(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
    """(ranges of the tokens that lie wholly in a span, number of tokens across a border).

    A token of no characters is inside where it stands before the span's end.
    """
    starts = [first for first, _ in offsets]
    learnt = []
    crossing = set()
    for begin, end in spans:
        first, behind = bisect.bisect_left(starts, begin), bisect.bisect_left(starts, end)
        crossing |= set(itertools.takewhile(lambda i: offsets[i][1] > begin, range(first - 1, -1, -1)))  # noqa: B023
        while behind > first and offsets[behind - 1][1] > end:
            behind -= 1
            crossing.add(behind)
        learnt.append((first, behind))
    return learnt, len(crossing)
