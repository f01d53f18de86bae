"""Chat templates in Jinja, as folders of models carry them: conversations to text, and where the answers are in it.

A template's text is a program by strangers. It runs in transformers' own sandbox
(transformers/utils/chat_template_utils.py: what `apply_chat_template` renders with), which keeps it from Python's
objects; a time limit stops it, and template_trial.py tries it in a process of its own first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import datetime
import functools
import hashlib
import inspect
import json
import re
from typing import Any, NamedTuple

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import types
from vlguard_jax.families.chat import deadline
from vlguard_jax.families.chat import templates

RULES = 1  # of this file: how a record becomes messages, and where answers begin and end; part of the hash
DATE = "2024-07-26"  # what templates get for today's date; Llama 3's own fallback
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
_MARKS = range(0xE000, 0xF8FF)  # characters for private use
_BREAK = re.compile(rf"\n?{re.escape(templates.IMAGE_TAG)}\n?")  # a line break beside a tag goes with it

Messages = list[dict[str, Any]]


class RefusedError(errors.UserError):
    """A conversation that a template does not take."""


class Rendered(NamedTuple):
    """A conversation's text, with (start, end) of each answer in it, without end tokens."""

    text: str
    answers: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class JinjaTemplate:
    """A template with all that decides what it renders.

    text: in Jinja. special: (name, text) of the tokenizer's special tokens, such as "bos_token", which templates know
    by name. date: of `strftime_now`. pictures: whether messages are lists of texts and pictures, as the models of
    transformers with pictures take them, or plain texts. image: the text that stands for a picture where it is
    rendered. origin: its file, for messages.
    """

    name: str
    text: str
    special: tuple[tuple[str, str], ...]
    date: str = DATE
    pictures: bool = False
    image: str = templates.IMAGE_TAG
    origin: str = dataclasses.field(default="", compare=False)

    @property
    def sha256(self) -> str:
        """Hash of everything that decides what it renders, and of the rules here."""
        decisive = [RULES, self.text, sorted(self.special), self.date, self.pictures, self.image]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    @property
    def where(self) -> str:
        """Its name in messages."""
        return self.origin or f"template {self.name}"

    def prompt(self, question: str, n_images: int, before: Sequence[types.Round] = ()) -> str:
        """Text that asks `question` about `n_images` pictures and ends where the answer starts. before: the
        conversation so far; what the template makes of its answers is up to it.

        Raises:
          UserError: the template fails, or does not show each question, or each picture once.
        """
        messages: Messages = []
        for one in before:
            messages += [self._asked(one.question, one.pictures), self._said(one.answer)]
        text = self._text([*messages, self._asked(question, n_images)], ask=True)
        for shown in (*(one.question for one in before), question):
            self._check_shown(text, "question", shown)
        self._check_pictures(text, n_images + sum(one.pictures for one in before))
        return text

    def _asked(self, question: str, n_images: int) -> dict[str, Any]:
        return {"role": ROLES["human"], "content": self._content([{"type": "image"}] * n_images, question)}

    def _said(self, answer: str) -> dict[str, Any]:
        return {"role": ROLES["gpt"], "content": self._content([], answer)}

    def render(self, turns: Sequence[types.Turn], n_images: int) -> Rendered:
        """Text of a conversation. Its picture tags stand for pictures if `n_images` is not 0.

        The answers are found by a second rendering with marks in their place: what stands between the marks must be
        in the first one too, and the answers, or the answers stripped of white space, between.

        Raises:
          UserError: the template fails, leaves a turn out, rewrites it, or does not show each picture once.
        """
        messages = self._messages(turns, n_images > 0)
        text = self._text(messages, ask=False)
        tags = sum(turn.text.count(templates.IMAGE_TAG) for turn in turns) if n_images else 0
        self._check_pictures(text, tags)
        answers = [turn.text for turn in turns if turn.role == "gpt"]
        whole = "".join(turn.text for turn in turns)
        mark = next(c for c in map(chr, _MARKS) if c not in whole)
        marks = (self._content([], f"{mark}{i}{mark}") for i in range(len(answers)))
        marked = [one | {"content": next(marks)} if one["role"] == ROLES["gpt"] else one for one in messages]
        between = _split(self._text(marked, ask=False), mark, len(answers))
        found = _align(text, between, answers) if between is not None else None
        if found is None:
            raise RefusedError(
                f"{self.where} rewrites answers, more than to strip white space from them, so that what is to be learnt"
                " cannot be told: take another template with config.model.template"
            )
        for turn in turns:
            for part in turn.text.split(templates.IMAGE_TAG) if n_images else [turn.text]:
                if turn.role != "gpt":
                    self._check_shown(text, "question" if turn.role == "human" else "system text", part)
        return Rendered(text, found)

    def _messages(self, turns: Sequence[types.Turn], shown: bool) -> Messages:
        return [{"role": ROLES[turn.role], "content": self._parts(turn.text, shown)} for turn in turns]

    def _parts(self, text: str, shown: bool) -> Any:
        if not (shown and self.pictures) or templates.IMAGE_TAG not in text:
            return self._content([], text)
        first, *rest = _BREAK.split(text)
        parts = [{"type": "text", "text": first}] if first else []
        for one in rest:
            parts += [{"type": "image"}, *([{"type": "text", "text": one}] if one else [])]
        return parts

    def _content(self, pictures: list[dict[str, str]], text: str) -> Any:
        return [*pictures, {"type": "text", "text": text}] if self.pictures else text

    def _text(self, messages: Messages, *, ask: bool) -> str:
        """What the template makes of messages, as `apply_chat_template` calls it."""
        given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": ask}
        transformers_utils()  # which takes time, once
        text = self._guarded(
            lambda: deadline.run(
                lambda: _compile(self.text, self.date).render(**given, **dict(self.special)),
                float(limits.TEMPLATE_SECONDS),
            )
        )
        if len(text) > limits.TEMPLATE_OUTPUT:
            raise errors.UserError(
                f"{self.where} makes {len(text):,} characters of a conversation; at most"
                f" {limits.TEMPLATE_OUTPUT:,} are read"
            )
        return text

    def _guarded(self, make: Callable[[], str]) -> str:
        """Whatever the template raises, as one line."""
        from jinja2 import exceptions

        kind: type[errors.UserError] = errors.UserError
        try:
            return make()
        except exceptions.TemplateSyntaxError as e:
            why = f"is not valid Jinja: line {e.lineno}: {e.message}: copy it again"
        except exceptions.SecurityError as e:
            why = f"reaches for Python's objects, which is refused: {e}"
        except TimeoutError as e:
            why = f"{e} for one conversation: take another template with config.model.template"
        except MemoryError:
            why = "takes too much memory for one conversation: take another template with config.model.template"
        except exceptions.UndefinedError as e:
            kind, why = RefusedError, f"needs what it is not given: {e}"
        except exceptions.TemplateError as e:  # also its own raise_exception
            kind, why = RefusedError, f"refuses the conversation: {e}"
        except Exception as e:  # another's program may raise anything
            kind, why = RefusedError, f"fails: {type(e).__name__}: {e}"
        raise kind(f"{self.where} {why}")

    def _check_shown(self, text: str, what: str, turn: str) -> None:
        """Raise UserError unless a turn stands in the rendered text."""
        if turn.strip() not in text:
            raise RefusedError(
                f"{self.where} leaves out or rewrites the {what} {errors.short(turn)}: take another template with"
                " config.model.template"
            )

    def _check_pictures(self, text: str, n_images: int) -> None:
        """Raise UserError unless the rendered text shows each picture once."""
        if not self.pictures and not n_images:
            return
        shown = text.count(self.image)
        if shown < n_images:
            raise RefusedError(
                f"{self.where} has no place for pictures: it shows {shown} of {n_images} as {self.image!r}; take"
                " another template with config.model.template"
            )
        if shown > n_images:
            raise RefusedError(f"the text {self.image!r}, which stands for a picture, is in a turn: remove it")


@functools.cache
def transformers_utils() -> Any:
    """The module of transformers that renders chat templates, imported when it is needed."""
    from transformers.utils import chat_template_utils

    return chat_template_utils


@functools.lru_cache(maxsize=16)
def _compile(text: str, date: str) -> Any:
    """The template compiled in transformers' environment, in one of its own, where the date can be set.

    (`render_jinja_template` takes nothing that can be called, so `strftime_now` cannot be given to it.)
    """
    compiled = inspect.unwrap(transformers_utils()._cached_compile_jinja_template)(text)
    today = datetime.datetime.fromisoformat(date)
    compiled.globals = {**compiled.globals, "strftime_now": today.strftime}  # a plain dict is copied fast
    return compiled


def _split(text: str, mark: str, count: int) -> list[str] | None:
    """The `count` + 1 texts between marks 0, 1, ...; None unless each is there once, in order."""
    parts = text.split(mark)  # text, number, text, number, ..., text
    if len(parts) != 2 * count + 1 or parts[1::2] != [str(i) for i in range(count)]:
        return None
    return parts[::2]


def _align(text: str, between: Sequence[str], answers: Sequence[str]) -> tuple[tuple[int, int], ...] | None:
    """(start, end) of each answer in `text`, which consists of the texts `between` and of the answers, as they are or
    stripped; None if it does not."""
    if not text.startswith(between[0]):
        return None
    paths: dict[int, tuple[tuple[int, int], ...]] = {len(between[0]): ()}  # where the text is matched to -> the spans
    for answer, after in zip(answers, between[1:], strict=True):
        further: dict[int, tuple[tuple[int, int], ...]] = {}
        for at, spans in paths.items():
            for form in _forms(answer):
                if text.startswith(form + after, at):
                    end = at + len(form)
                    further.setdefault(end + len(after), (*spans, (at, end)))
        paths = further
    return paths.get(len(text))


def _forms(answer: str) -> tuple[str, ...]:
    """An answer as it is, and stripped in the ways of templates."""
    if answer and not answer[0].isspace() and not answer[-1].isspace():
        return (answer,)
    ways = (answer, answer.rstrip(), answer.lstrip(), answer.strip(), answer.lstrip("\n"), answer.strip("\n"))
    return tuple(dict.fromkeys(ways))
