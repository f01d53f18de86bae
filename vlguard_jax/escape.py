"""Foreign text on its way out, one function for each medium: a terminal's line, a page, Markdown, LaTeX.

Names of models, files, tensors and columns, questions and answers are other people's. What a terminal obeys or nobody
sees (control characters, line breaks, marks of the direction of writing, halves of surrogate pairs) is spelled:
`\\x1b`, `\\u202e`. `line` and `page` leave their own results as they are. Words of a shell: launch/quoting.py.
"""

from __future__ import annotations

import re
import unicodedata

from vlguard_jax import limits

DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BREAKS = frozenset("\n\t")
_LEFT_OUT = 40  # characters that say how long a text was
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
    """`text` as one line of what can be seen, of at most `limit` characters: what is longer keeps its beginning and its
    end."""
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
    """`text` of any number of lines for a page, before HTML is made of it: the scripts of all languages, and nothing
    that steers."""
    return text if text.isprintable() else "".join(ascii(c)[1:-1] if steers(c) else c for c in text)


def steers(char: str) -> bool:
    """Whether a terminal, an editor or a browser may obey a character and not show it; a line feed and a tab are none
    of these."""
    if char in _BREAKS:
        return False
    return char in DIRECTIONS or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or no_character(char)


def no_character(char: str) -> bool:
    """Whether a code point stands for no character in any text."""
    return char == "\ufeff" or ord(char) & 0xFFFE == 0xFFFE or "\ufdd0" <= char <= "\ufdef"


def markdown(text: str) -> str:
    """`text` for a cell of a table: no markup, no HTML, no link."""
    return _MARKDOWN.sub(r"\\\g<0>", line(text))


def markdown_item(text: str) -> str:
    """`text` for an item of a list: as `markdown`, and nothing at its beginning that makes another list of it, or a
    block."""
    return _BEGINNING.sub(r"\1\\\2", markdown(text.lstrip()))


def latex(text: str) -> str:
    """`text` for a cell of a table: nothing that LaTeX reads as more than text, nor as an argument of the line's end
    before it."""
    shown = "".join(_LATEX.get(c, c) for c in line(text))
    return f"{{}}{shown}" if shown[:1] in ("[", "*") else shown
