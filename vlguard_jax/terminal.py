"""What commands print.

All text goes through here, so that nothing in it can steer the terminal or be read as markup.
"""

from __future__ import annotations

from typing import Any

from rich import console as rich_console
from rich import text as rich_text

from vlguard_jax import escape

WIDTH = 200  # letters of a line where the output is no terminal
_LONGEST = 1 << 16  # letters of one text; tables and notes of our own stay far below


class Console(rich_console.Console):
    """Rich's console, for which every text, in tables and titles too, is plain text of one line.

    Styled text: rich.text.Text.
    """

    def __init__(self, **options: Any):
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> rich_text.Text:
        """See the base class; rich calls it for every str that it shows."""
        return super().render_str(escape.line(text, _LONGEST), **options)


def console(**options: Any) -> Console:
    """Where the output goes, as wide as the terminal or, into a file or pipe, `WIDTH`."""
    made = Console(**options)
    return made if made.is_terminal else Console(width=WIDTH, **options)


def say(*lines: str) -> None:
    """Print lines as they are, never wrapped."""
    for line in lines:
        print(escape.line(line, _LONGEST))
