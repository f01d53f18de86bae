"""From a conversation to token ids and labels: by a built-in template of LLaVA's exactly as the reference, even for odd
text; by a chat template in Jinja by the answers' places in the text (spans.py).

Source: llava/train/train.py:308-329 (tags moved to the front), 414-497 (labels) and llava/mm_utils.py:185-204 (pictures
in text).
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int32
import numpy as np

from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import piece_tokenizer
from vlguard_jax.families.chat import spans
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

ROLES = ("human", "gpt")
SYSTEM = "system"

Template = templates.Template | jinja_template.JinjaTemplate


def tokenize(
    record: types.Record, tokenizer: tokenizer_lib.Tokenizer, template: Template, max_len: int
) -> types.Tokens:
    """Ids and labels of one conversation, before image expansion.

    Text-only records are truncated at `max_len`, as in the reference; those with pictures later, in data/batches.py.
    Where the reference finds that its token counts disagree, every label is ignored and `mismatch` is its message.

    Raises:
      UserError: the turns do not alternate between "human" and "gpt", the tokenizer is of another family than the
        template, or the template does not take the conversation.
    """
    has_image = bool(record.images)
    turns = _turns(record)
    if has_image:
        in_place = _one_each(record)
        turns = [turn if in_place and turn.text.count(templates.IMAGE_TAG) > 1 else _tag_first(turn) for turn in turns]
    if isinstance(template, jinja_template.JinjaTemplate):
        try:
            return spans.tokenize(turns, len(record.images), tokenizer, template, max_len)
        except errors.UserError as e:
            raise errors.UserError(f"{record.origin or record.id}: {e}") from e
    if turns and turns[0].role == SYSTEM:
        raise errors.UserError(
            f"{record.origin or record.id}: turn 1 is from {SYSTEM!r}, and template {template.name!r} has a system text"
            " of its own: take the turn out, or a template that takes one with config.model.template"
        )
    texts = [turn.text for turn in turns]
    if not isinstance(tokenizer, piece_tokenizer.PieceTokenizer):
        raise errors.UserError(
            f"template {template.name!r} is made for tokenizers of the Llama-2 family, and {tokenizer.folder} holds"
            " another: choose the model's own chat template"
        )
    try:
        rendered = template.render(texts)
    except errors.UserError as e:
        raise errors.UserError(f"{record.origin or record.id}: {e}") from e
    ids = tokenize_text(rendered, tokenizer) if has_image else tokenizer.encode(rendered)[:max_len]
    labels, mismatch = _labels(rendered, ids, has_image, tokenizer, template, max_len)
    return types.Tokens(ids=np.asarray(ids, np.int32), labels=labels, mismatch=mismatch)


def tokenize_prompt(
    question: str,
    n_images: int,
    tokenizer: tokenizer_lib.Tokenizer,
    template: Template,
    origin: str = "a question",
    before: Sequence[types.Round] = (),
) -> Int32[np.ndarray, " n"]:
    """Ids of the prompt that asks `question` about `n_images` pictures, `IMAGE_TOKEN` for each.

    `origin` names it in messages; `before` is the conversation so far, whose answers stand as in training.

    Raises:
      UserError: the question itself contains a picture tag although pictures are given, or the template does not take
        it.
    """
    if isinstance(template, jinja_template.JinjaTemplate):
        try:
            return np.asarray(spans.tokenize_prompt(question, n_images, tokenizer, template, before), np.int32)
        except errors.UserError as e:
            raise errors.UserError(f"{origin}: {e}") from e
    prompt, shown = template.prompt(question, n_images, before), n_images + sum(one.pictures for one in before)
    if not shown:
        return np.asarray(tokenizer.encode(prompt), np.int32)
    if prompt.count(templates.IMAGE_TAG) != shown:
        raise errors.UserError(
            f"{origin} holds the text {templates.IMAGE_TAG!r}, which stands for a picture: remove it"
        )
    return np.asarray(tokenize_text(prompt, tokenizer), np.int32)


def tokenize_text(text: str, tokenizer: tokenizer_lib.Tokenizer) -> list[int]:
    """Ids of a text with picture tags.

    The text between tags is tokenized piece by piece, so each piece starts like a new text.
    """
    first, *rest = text.split(templates.IMAGE_TAG)
    ids = tokenizer.encode(first)
    for chunk in rest:
        ids += [types.IMAGE_TOKEN, *tokenizer.encode(chunk, add_bos=False)]
    return ids


def count_tags(record: types.Record) -> int:
    """Number of pictures that the text of `record` asks for: one for each tag if there are as many pictures, else one
    for each turn with tags, as the reference merges those of a turn."""
    if _one_each(record):
        return len(record.images)
    return sum(templates.IMAGE_TAG in turn.text for turn in _turns(record))


def mismatch_cause(record: types.Record, tokenizer: tokenizer_lib.Tokenizer, template: templates.Template) -> str:
    """Why, in plain words, the reference's token counts of `record` disagree, so that it ignores all labels."""
    begin = int(record.turns[0].role == ROLES[1])  # a greeting, which is dropped
    turns = record.turns[begin:]
    for i, turn in enumerate(turns, begin + 1):
        where = f"turn {i}, from {turn.role!r},"
        if not turn.text:
            return f"{where} is empty"
        if template.sep2 in turn.text:
            return f"{where} holds {template.sep2!r}, the mark at the end of an answer"
        if template.answer_mark in f" {turn.text} ":
            return f"{where} holds {template.answer_mark.strip()!r}, the mark in front of an answer"
        if tokenizer.masked_id in tokenizer.encode(turn.text):
            return f"{where} holds text that becomes the unknown token, which is not counted"
    return (
        "the last question has no answer" if len(turns) % 2 else "its rounds have other tokens separately than together"
    )


def _one_each(record: types.Record) -> bool:
    """Whether each tag stands for a picture of its own, also where a turn has several."""
    count = len(record.images)
    return count > 1 and sum(turn.text.count(templates.IMAGE_TAG) for turn in _turns(record)) == count


def _turns(record: types.Record) -> list[types.Turn]:
    """The system turn, if the record begins with one, then questions and answers in turn."""
    first = [turn for turn in record.turns[:1] if turn.role == SYSTEM]
    turns: Sequence[types.Turn] = record.turns[len(first) :]
    if turns and turns[0].role == ROLES[1]:
        turns = turns[1:]  # the reference drops a greeting
    for i, turn in enumerate(turns):
        if turn.role != ROLES[i % 2]:
            raise errors.UserError(
                f"{record.origin or record.id}: turn {i + 1 + len(first)} is from {turn.role!r}, expected"
                f" {ROLES[i % 2]!r}"
            )
    return [*first, *turns]


def _tag_first(turn: types.Turn) -> types.Turn:
    if templates.IMAGE_TAG not in turn.text:
        return turn
    text = f"{templates.IMAGE_TAG}\n{turn.text.replace(templates.IMAGE_TAG, '').strip()}".strip()
    return types.Turn(turn.role, text)


def _labels(
    rendered: str,
    ids: Sequence[int],
    has_image: bool,
    tokenizer: piece_tokenizer.PieceTokenizer,
    template: templates.Template,
    max_len: int,
) -> tuple[Int32[np.ndarray, " n"], str | None]:
    """The reference's arithmetic: it tokenizes each round separately and adds up the lengths."""

    def length(text: str) -> int:
        return len(tokenize_text(text, tokenizer)) if has_image else len(tokenizer.encode(text))

    labels = np.asarray(ids, np.int32)
    total = int((labels != tokenizer.masked_id).sum())
    at = 1
    labels[:at] = types.IGNORE_LABEL
    for i, round_text in enumerate(rendered.split(template.sep2)):
        parts = round_text.split(template.answer_mark)
        if len(parts) != 2:
            break
        # The begin token of the round stands in for its missing end token. The question's own begin token and the space
        # piece at its end, which merges with the answer, do not count.
        round_length = length(round_text)
        question_length = length(parts[0] + template.answer_mark) - 2
        if i and template.rejoined and not tokenizer.legacy:
            # "USER" starts with a space piece when tokenized alone, but not after the end token.
            round_length -= 1
            question_length -= 1
        labels[at : at + question_length] = types.IGNORE_LABEL
        at += round_length
    labels[at:] = types.IGNORE_LABEL
    if at < max_len and at != total:
        labels[:] = types.IGNORE_LABEL
        return labels, f"WARNING: tokenization mismatch: {at} vs. {total}. (ignored)"
    return labels, None
