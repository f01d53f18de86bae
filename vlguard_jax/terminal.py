"""Printing for commands.

All text goes through here, so that nothing in it can control the terminal or be read as markup.
"""

from __future__ import annotations

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


def console(**options: Any) -> Console:
    """A console for standard output, as wide as the terminal or, for a file or pipe, `WIDTH`."""
    made = Console(**options)
    return made if made.is_terminal else Console(width=WIDTH, **options)


def say(*lines: str) -> None:
    """Print lines without wrapping them."""
    for line in lines:
        print(escape.line(line, _LONGEST))
