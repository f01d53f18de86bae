"""The pages of the site and their fenced blocks: what is a file, what is run, and what is only shown."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib
import re
import textwrap

from tests import source

DOCS = source.ROOT / "docs"
WRITTEN = ("python", "json", "toml")  # with a title: written to the folder first
_FENCE = re.compile(r"^( *)(```+) *(.*)$")
_INFO = re.compile(r'^(bash|python|text|json|toml)(?: title="([\w./-]+)")?$')


@dataclasses.dataclass(frozen=True)
class Block:
    """line: of the opening fence, from 1. kind: bash, python, text, json or toml. title: the file that it is, or ""."""

    line: int
    kind: str
    title: str
    text: str


def pages() -> list[pathlib.Path]:
    """README.md and every page of the site."""
    return [source.ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page.

    Raises:
      ValueError: a fence with other words than the convention has (CONTRIBUTING.md), or one that is not closed.
    """
    opened: tuple[int, str, str] | None = None  # line, fence, words
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _FENCE.match(line)
        if opened is None and found:
            opened, inside = (number, found[2], found[3].strip()), []
        elif opened is not None and found and found[2] == opened[1] and not found[3]:
            yield _block(opened[0], opened[2], textwrap.dedent("".join(f"{one}\n" for one in inside)))
            opened = None
        elif opened is not None:
            inside.append(line)
    if opened is not None:
        raise ValueError(f"line {opened[0]}: the fence is not closed")


def _block(line: int, words: str, text: str) -> Block:
    found = _INFO.match(words)
    if not found:
        raise ValueError(
            f'line {line}: ```{words} is none of bash, text, python, and python, json or toml with title="FILE"'
        )
    kind, title = found[1], found[2] or ""
    if (title and kind not in WRITTEN) or (kind in ("json", "toml") and not title):
        raise ValueError(f"line {line}: {kind} must {'not ' if title else ''}have a title")
    return Block(line, kind, title, text)


def files(found: list[Block]) -> dict[str, str]:
    """The files that a page shows, by their titles, and its programs.

    Raises:
      ValueError: two have the same title, or one leads out of the folder.
    """
    made: dict[str, str] = {}
    for block in found:
        name = block.title or (_program(block) if block.kind == "python" else "")
        if name in made or ".." in name or name.startswith("/"):
            raise ValueError(f"line {block.line}: {name} is there already, or outside of the folder")
        if name:
            made[name] = block.text
    return made


def script(found: list[Block], page: str) -> str:
    """What is run of a page, top to bottom, as one bash script whose lines have the numbers of the page's."""
    fails = f"""trap 'echo "{page}:$LINENO: this command failed" >&2' ERR"""
    lines = {1: f"set -E -e -u -o pipefail; {fails}"}
    for block in found:
        if block.kind == "bash":
            lines |= dict(enumerate(block.text.splitlines(), block.line + 1))
        elif block.kind == "python" and not block.title:
            lines[block.line] = f"python {_program(block)}"
    return "".join(f"{lines.get(number, '')}\n" for number in range(1, max(lines) + 1))


def _program(block: Block) -> str:
    return f"line_{block.line}.py"
