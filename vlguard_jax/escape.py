"""Escapes foreign text for each medium: a terminal's line, a page, Markdown, LaTeX.

Names of models, files, tensors and columns, questions and answers are foreign. Characters that control a terminal or
are invisible (control characters, line breaks, bidirectional marks, halves of surrogate pairs) are escaped: `\\x1b`,
`\\u202e`. `line` and `page` are idempotent. Words of a shell: launch/quoting.py.
"""

from __future__ import annotations

import re
import unicodedata

from vlguard_jax import limits

DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BREAKS = frozenset("\n\t")
_LEFT_OUT = 40  # characters of the note on how long a text was
# Backslash, code, emphasis, HTML, entities, cells, strikes, formulas; ends of links; underscores that no name has;
# links without brackets.
_MARKDOWN = re.compile(r"[\\`*<>|~$&]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|^#|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
_BEGINNING = re.compile(r"^(\d{0,9})([-+=.)\[])")  # of a list, a rule, a box to tick
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "<": r"$<$",
    ">": r"$>$",
}


def line(text: str, limit: int = limits.LINE) -> str:
    """`text` as one visible line of at most `limit` characters; a longer text keeps its beginning and end."""
    if len(text) <= limit:
        shown = _spelled(text)
        if len(shown) <= limit:
            return shown
    tail = limit // 3
    return (
        f"{_spelled(text[:limit])[: limit - tail - _LEFT_OUT]} ... ({len(text):,} characters) ..."
        f" {_spelled(text[-limit:])[-tail:]}"
    )


def _spelled(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def page(text: str) -> str:
    """`text` of any number of lines for a page, before HTML escaping: characters of all scripts, but none that
    steers."""
    return text if text.isprintable() else "".join(ascii(c)[1:-1] if steers(c) else c for c in text)


def steers(char: str) -> bool:
    """Whether a terminal, an editor or a browser may obey a character instead of showing it; not a line feed or a
    tab."""
    if char in _BREAKS:
        return False
    return char in DIRECTIONS or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or no_character(char)


def no_character(char: str) -> bool:
    """Whether a code point is not a character."""
    return char == "\ufeff" or ord(char) & 0xFFFE == 0xFFFE or "\ufdd0" <= char <= "\ufdef"


def markdown(text: str) -> str:
    """`text` for a cell of a table: no markup, no HTML, no link."""
    return _MARKDOWN.sub(r"\\\g<0>", line(text))


def markdown_item(text: str) -> str:
    """`text` for an item of a list: as `markdown`, and nothing at its start that begins a list or a block."""
    return _BEGINNING.sub(r"\1\\\2", markdown(text.lstrip()))


def latex(text: str) -> str:
    """`text` for a cell of a table: nothing that LaTeX reads as more than text, or as an argument of the preceding
    `\\\\`."""
    shown = "".join(_LATEX.get(c, c) for c in line(text))
    return f"{{}}{shown}" if shown[:1] in ("[", "*") else shown
