"""The texts of a launch file: which are allowed, and how their placeholders are filled.

Every text ends up in a script, a manifest or a table on a terminal. Characters that these do not all show or keep
unchanged (line breaks and other control characters, bidirectional marks, code points that are not characters) are
refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import re
from typing import Annotated, Any
import unicodedata

from vlguard_jax import errors
from vlguard_jax import escape

LONGEST = 30_000  # characters of one value: Linux takes an argument or a variable of 131,071 bytes
Text = Annotated[str, LONGEST]
Value = str | int | float | bool

_REFUSED = {"Cc": "a control character", "Cs": "half a character", "Zl": "a line break", "Zp": "a line break"}
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def check(value: Any, where: str) -> None:
    """Check a value read from TOML, and everything in it; `where` names it: "env.NAME".

    Raises:
      UserError: a text that is too long or has a refused character; an integer beyond 64 bits.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_text(key, f"a key of {where}" if where else "a key")
            name = key if re.fullmatch(r"[-\w.]{1,200}", key) else errors.short(key)
            check(item, f"{where}.{name}" if where else name)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, item in enumerate(value):
            check(item, f"{where}[{i}]")
    elif isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise errors.UserError(f"{where}: the number has more than 64 bits")


def _check_text(text: str, where: str) -> None:
    if len(text) > LONGEST:
        raise errors.UserError(
            f"{where}: {len(text):,} characters; a value has at most {LONGEST:,}: put it into a file and name that"
        )
    for char in text:
        what = _REFUSED.get(unicodedata.category(char), "")
        if char in escape.DIRECTIONS:
            what = "a bidirectional mark"
        elif escape.no_character(char):
            what = "a code point that is not a character"
        if what:
            raise errors.UserError(
                f"{where}: {errors.short(text)} holds {what} (U+{ord(char):04X}); take it out, or put the text"
                " into a file"
            )


def write(value: Value) -> str:
    """A value as text for a command line or a variable: true and false as in TOML, numbers in decimal."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def fill(text: str, known: Mapping[str, Value], where: str) -> str:
    """`text` with {NAME} replaced by the value of that name, {{ and }} by a brace.

    Raises:
      UserError: an unknown name, a single brace; or the result is too long.
    """

    def one(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        name = match[1]
        if name is None:
            raise errors.UserError(
                f"{where}: {errors.short(text)}: a single {match[0]}; a brace itself is written twice"
            )
        if name not in known:
            unknown = f"{{{errors.short(name[:90])[1:-1]}}} is not known{errors.nearest(name, known)}"
            raise errors.UserError(f"{where}: {errors.short(text)}: {unknown}; a brace itself is written twice")
        return write(known[name])

    filled = _PARTS.sub(one, text)
    _check_text(filled, where)
    return filled


def match(pattern: str, value: str, where: str, form: str) -> None:
    """Raise UserError unless all of `value` matches `pattern`; `form` describes it in words: "letters, digits and
    dashes"."""
    if not re.fullmatch(pattern, value, re.ASCII):
        raise errors.UserError(f"{where}: {errors.short(value)} must be {form}")
