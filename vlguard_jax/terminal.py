"""Printing for commands.

All text goes through here, so that nothing in it can control the terminal or be read as markup, and in the form that
`choose` sets: "auto" (bars in a terminal, lines elsewhere), "plain" (lines in a terminal, too), "quiet" (the result
alone) or "json" (one JSON object a line, with what it is as "event").
"""

from __future__ import annotations

import io
import json
from typing import Any

from rich import console as rich_console
from rich import text as rich_text

from vlguard_jax import escape

WIDTH = 200  # characters of a line where the output is not a terminal
_LONGEST = 1 << 16  # characters of one text; our own tables and notes stay far below


class Console(rich_console.Console):
    """Rich's console, with every string, also in tables and titles, shown as one line of plain text.

    Styled text: rich.text.Text.
    """

    def __init__(self, **options: Any):
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> rich_text.Text:
        """See the base class; rich calls it for every str it shows."""
        return super().render_str(escape.line(text, _LONGEST), **options)


class _Events(Console):
    """Prints each text, table or whatever is given it as an event "note"."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See the base class."""
        if self.quiet:
            return
        drawn = Console(file=io.StringIO(), width=self.width)
        drawn.print(*objects, **options)
        event("note", text=drawn.file.getvalue().rstrip("\n"))  # type: ignore[attr-defined]


_form = "auto"


def choose(form: str) -> None:
    """Print in this form from now on; "auto", "plain", "quiet" or "json"."""
    global _form
    _form = form


def event(kind: str, **values: Any) -> bool:
    """Print a JSON line where this is the chosen form; whether it is. `values`: what JSON can hold."""
    if _form != "json":
        return False
    print(json.dumps({"event": kind, **values}), flush=True)
    return True


def console(*, result: bool = False, **options: Any) -> Console:
    """A console for standard output, as wide as the terminal or, for a file or pipe, `WIDTH`. result: it shows what
    the command is for, which a quiet one prints, too.

    FORCE_COLOR, which notebooks set for all that they start, makes no terminal of a pipe.
    """
    if _form == "json":
        return _Events(width=WIDTH, force_terminal=False, **options)
    if _form != "auto":
        quiet = options.pop("quiet", False) or (_form == "quiet" and not result)
        options |= {"force_terminal": False, "quiet": quiet}
    made = Console(**options)
    if made.is_terminal and (options.get("force_terminal") or made.file.isatty()):
        return made
    return Console(**{"width": WIDTH, **options, "force_terminal": False})


def say(*lines: str) -> None:
    """Print lines without wrapping them."""
    for line in lines:
        if not event("note", text=line) and _form != "quiet":
            print(escape.line(line, _LONGEST), flush=True)
