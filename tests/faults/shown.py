"""Foreign text on its way out: names, questions and answers that steer, mark up or break off, put through every medium.

The judge of a medium is no part of the program: a parser of Markdown and of HTML, a tokenizer of TeX, tables of
Unicode. Right is that nothing in the text means anything there, and that what people write comes out in full.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import functools
import html.parser
import io
import pathlib
import random
import re
import sys
import unicodedata

import markdown_it
import rich.table

from tests.faults import sandbox
from vlguard_jax import cli
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import limits
from vlguard_jax import terminal
from vlguard_jax.reporting import page
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.reporting import tables

STARTS = ("", "", "- ", "+ ", "* ", "1. ", "12) ", "---", "===", "    ", "[", "*", "# ", "> ", "[x] ")
PIECES = (
    *(
        "\u001b[2J",
        "\u001b]8;;http://x\u001b\\x",
        "\u001b",
        "\u009b2J",
        "\u0085",
        "\r",
        "\n",
        "\n\n",
        "\v",
        "\f",
        "\u2028",
        "\u2029",
        "\0",
    ),
    *(
        "\u202e",
        "\u2066",
        "\u200f",
        "\u061c",
        "\ufeff",
        "\ufffe",
        "\U0001ffff",
        "\ufdd0",
        "\ud83d",
        "\udce9",
        "\u0301" * 9,
        "\U000e0041",
    ),
    *(
        "[/b]",
        "[red]",
        "[link=file:///etc/passwd]x[/link]",
        "[",
        "]",
        ":smile:",
        "<b>",
        "</td><td>",
        "<script>alert(1)</script>",
        "<!--",
    ),
    *(
        "&lt;",
        "&#60;",
        '"',
        "'",
        '" onload="x',
        "{{ 7 * 7 }}",
        "{% raw %}",
        "![x](http://y)",
        "[x](javascript:y)",
        "[x]: http://y",
        "|",
    ),
    *(
        "<http://auto.x>",
        "http://bare.x",
        "https://bare.x",
        "www.bare.x",
        "`",
        "```",
        "~~~",
        "~~x~~",
        "*x*",
        "__x__",
        "_",
        "# x",
        "---",
    ),
    *(
        "- x",
        "1. x",
        "> x",
        "\\",
        "\\\\",
        "\\|",
        "\\input{/etc/passwd}",
        "\\\\[2cm]",
        "^^5cinput",
        "%",
        "$x$",
        "&",
        "{",
        "}",
        "#",
        "~",
    ),
    *("\u00e9", "\u4e2d\u6587", "\U0001f642", "\u0645\u06cc\u200c\u062e", "plain_7b", " ", "    ", "a" * 400, "\t"),
)
LONG = 10_000  # characters from which a text may be cut: spelled, it takes up to ten times as many
BAD = ("Cc", "Cs", "Zl", "Zp")
DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
TEX = re.compile(
    r"\\(?:textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]|\$(?:[<>]|\\(?:down|up)arrow)\$|[^\\&%$#_{}~^]"
)


def draw(rng: random.Random) -> str:
    """A text of some pieces, now and then a very long one."""
    text = rng.choice(STARTS) + "".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 9)))
    text += "".join(
        chr(rng.choice([rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000)]))
        for _ in range(rng.randrange(4))
    )
    return text * rng.choice([1] * 20 + [300])


def steering(text: str, allowed: str = "") -> str:
    """The first character that a terminal or browser may obey, as U+..., "" without one."""
    found = (
        c for c in text if c not in allowed and (unicodedata.category(c) in BAD or c in DIRECTIONS or unprintable(c))
    )
    return next((f"U+{ord(c):04X}" for c in found), "")


def unprintable(char: str) -> bool:
    """The code points that Unicode keeps free of characters, and the byte order mark."""
    code = ord(char)
    return char == "\ufeff" or code % 0x10000 >= 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def lost(text: str, shown: str) -> str:
    """The first letter, digit or mark of `text` that is not in `shown` behind those before it; "" where all are."""
    rest = iter(shown)
    seen = (
        c for c in text if (c.isascii() and c.isprintable() and not c.isspace()) or unicodedata.category(c)[0] == "L"
    )
    return next((c for c in seen if c not in rest), "")


def _line(text: str) -> str:
    shown = escape.line(text)
    fits = len(text) > limits.LINE or len(shown) == limits.LINE or not lost(text, shown)
    return (
        steering(shown)
        or ("" if len(shown) <= limits.LINE else "too long")
        or ("" if fits or "characters) ..." in shown else "lost")
    )


def _page(text: str) -> str:
    shown = escape.page(text)
    return steering(shown, "\n\t") or lost(text, shown)


def _latex(text: str) -> str:
    shown = escape.latex(text)
    rest = TEX.sub("", shown.removeprefix("{}"))
    return steering(shown) or rest[:20] or ("an argument" if shown.startswith(("[", "*")) else "")


@functools.cache
def _parser() -> markdown_it.MarkdownIt:
    return markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _markdown(text: str) -> str:
    """As a heading, the first cell and the last of a table of 2 by 3, and as an item of a list."""
    cells = [[text, "b", text], ["a", text, "c"], [text, text, text]]
    made = tables.markdown_table(cells[0], cells[1:])
    tokens = _parser().parse(f"{made}\n- {escape.markdown_item(text)}\n")
    count = sum(token.type in ("th_open", "td_open") for token in tokens)
    lines = sum(token.type == "tr_open" for token in tokens)
    inner = [child for token in tokens for child in token.children or ()]
    marks = {child.type for child in inner} - {"text", "text_special"}
    blocks = {token.type for token in tokens} - {"inline"}
    parts = ("table", "thead", "tbody", "tr", "th", "td", "bullet_list", "list_item", "paragraph")
    known = {f"{part}_{end}" for part in parts for end in ("open", "close")}
    # of GitHub, without brackets
    links = re.search(r"(?<![a-z0-9])(?:https?|ftp)://|(?<![a-z0-9])www\.", made, re.IGNORECASE)
    wrong = (count, lines) != (9, 3) or marks or blocks - known or links
    return steering("".join(c.content for c in inner)) or (
        f"{count} cells, {marks}, {blocks - known}, {links}" if wrong else ""
    )


class _Structure(html.parser.HTMLParser):
    """What a page consists of besides its texts: tags and the names of their attributes, comments; and the texts of
    code."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[object] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "wbr":  # where a long name may be broken
            self.parts.append((tag, [name for name, _ in attrs]))
        self.text += "".join(value or "" for _, value in attrs)

    def handle_endtag(self, tag: str) -> None:
        self.parts.append(tag)

    def handle_comment(self, data: str) -> None:
        self.parts.append("comment")

    def handle_data(self, data: str) -> None:
        self.text += data


def _structure(text: str) -> _Structure:
    """Of the report of one training that is called `text`, with a table of it."""
    training = runs.Training(text, pathlib.Path("run"), config.TrainConfig(), ())
    table = provenance.Table((text, "b"), ((text, text),))
    found = _Structure()
    found.feed(page.render(runs.Runs((training,), (), ()), title=text, introduction=text, notes=(text,), claims=table))
    found.close()
    return found


def _html(text: str) -> str:
    found, plain = _structure(text), _structure("plain")
    return (
        steering(found.text, "\n\t") or ("other tags" if found.parts != plain.parts else "") or lost(text, found.text)
    )


def _printed(text: str) -> str:
    """A table of one column and a title on a terminal of 80 letters, in colour."""
    file = io.StringIO()
    console = terminal.Console(file=file, force_terminal=True, width=80, legacy_windows=False)
    table = rich.table.Table(box=None, title=text)
    table.add_column(text, overflow="fold")
    table.add_row(text)
    console.print(table)
    console.print(text)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())  # colours and bold, which rich itself sets
    return steering(plain, "\n") or ("" if len(text) > LONG else lost(text, plain))


def _said(text: str) -> str:
    file = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(file):
        terminal.say(text)
    file.seek(0)
    shown = file.read()
    return steering(shown.removesuffix("\n")) or ("" if len(text) > LONG else lost(text, shown))


def _ended(text: str) -> str:
    """What a command prints that ends with a refusal, a failed disk or a flag that is wrong, whichever takes the
    text."""
    ends: list[Exception] = [errors.UserError(f"{text}: no such file; name another"), OSError(28, "x", text)]
    for error, argv in ((ends[0], []), (ends[1], []), (None, [f"--{text}"]), (None, [f"--config={text}"])):

        def main(positional: list[str], error: Exception | None = error) -> int:
            if error:
                raise error
            return 0

        sys.argv = ["x", *argv]
        file = io.StringIO()
        with contextlib.redirect_stderr(file), contextlib.suppress(SystemExit):
            cli.run(main)
        if wrong := steering(file.getvalue().removesuffix("\n")):
            return f"{wrong} in {file.getvalue()[:200]!a}"
    return ""


MEDIA: dict[str, Callable[[str], str]] = {
    "line": _line,
    "page": _page,
    "LaTeX": _latex,
    "Markdown": _markdown,
    "HTML": _html,
    "terminal": _printed,
    "said": _said,
    "error": _ended,
}


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One text through one medium."""
    medium, text = rng.choice(list(MEDIA)), draw(rng)
    return sandbox.Trial(f"{medium} at {text[:60]!a}", lambda: MEDIA[medium](text), "", must_read=True)
