"""Prompts of judges as text files, our own and official ones: which places they have, and how these are filled in.

A place is a name in braces; doubled braces stand for one, as in Python's format strings, which official prompts are.
AlpacaEval's files hold a whole conversation between <|im_start|> and <|im_end|>.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
import re
from typing import Literal

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits

# What a place stands for, by the names that published prompts give it.
PLACES = {
    **dict.fromkeys(("question", "instruction", "forbidden_prompt", "prompt", "query"), "question"),
    **dict.fromkeys(("response", "answer", "completion"), "response"),
    "output_1": "output_1",
    "output_2": "output_2",
}
_PLACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z_0-9]*)\}")
_TURN = re.compile(r"<\|im_start\|>(system|user)\n(.*?)\n?<\|im_end\|>", re.S)
Role = Literal["system", "user"]


def read(path: pathlib.Path, needed: Sequence[str], where: str) -> str:
    """The prompt in a file.

    Args:
      path: the file.
      needed: places that it must have.
      where: the setting that names it, for messages.

    Raises:
      UserError: the file cannot be read, has a place that is unknown, or lacks one.
    """
    text = files.read_text(path, limits.TEMPLATE_BYTES)
    named = [found[1] for found in _PLACE.finditer(text) if found[1]]
    for name in named:
        if name not in PLACES:
            raise errors.UserError(
                f"{where}: {path}: {{{name}}} is no place to fill in{errors.nearest(name, PLACES)}; braces that are"
                " meant as they are stand doubled"
            )
    if missing := [place for place in needed if place not in {PLACES[name] for name in named}]:
        raise errors.UserError(f"{where}: {path}: has no {{{missing[0]}}}, where the judge is to read that; add it")
    return text


def filled(prompt: str, values: Mapping[str, str]) -> str:
    """The prompt with the values, by what `PLACES` stand for, in their places; values are not read as prompts."""

    def value(found: re.Match[str]) -> str:
        return values[PLACES[found[1]]] if found[1] else found[0][0]

    return _PLACE.sub(value, prompt)


def turns(prompt: str) -> list[tuple[Role, str]]:
    """(role, prompt) of the messages to send: those of a conversation, else one of the user."""
    found: list[tuple[Role, str]] = [("system" if m[1] == "system" else "user", m[2]) for m in _TURN.finditer(prompt)]
    return found or [("user", prompt)]
