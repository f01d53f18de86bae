"""Quotes texts so that the last program that reads them gets them unchanged. Texts have no control characters
(texts.py)."""

from __future__ import annotations

import json
import shlex


def yaml(text: str) -> str:
    r"""A double-quoted scalar of YAML, with `\"` and `\\` the only escapes.

    Python's and Go's parsers agree on those. Non-ASCII characters are not escaped: Go's refuses the surrogate pairs
    (\ud83d\ude00) with which JSON writes an emoji, and the longer \U0001f600 is not JSON.
    """
    return json.dumps(text, ensure_ascii=False)


def kubernetes(text: str) -> str:
    """A container's argument or variable: in both, Kubernetes replaces $(NAME) by a variable's value and reads $$ as
    $."""
    return text.replace("$", "$$")


def shell(text: str) -> str:
    """One word of bash."""
    return shlex.quote(text)


def xpk_variable(name: str, text: str) -> str:
    """--env's NAME=VALUE: XPK pastes the value between double quotes of its manifest without escaping it."""
    return f"{name}={yaml(kubernetes(text))[1:-1]}"


def xpk_command(words: str) -> str:
    """--command: XPK pastes it into a block of its manifest, whose lines go to `bash -c` unchanged."""
    return kubernetes(words)
