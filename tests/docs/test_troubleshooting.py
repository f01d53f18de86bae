"""docs/troubleshooting.md: each message that it quotes is still one of the program's."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests import source
from tests.docs import pages

HOLE = "…"  # what differs from message to message


def texts(node: ast.AST) -> Iterator[str]:
    """Every text in the code, an f-string as one with holes."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value
        elif isinstance(one, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in one.values)


def missing(quoted: str, said: list[str]) -> list[str]:
    """The parts of a quoted message, between its holes, that no text of the program has."""
    parts = [part.strip() for part in quoted.strip().split(HOLE)]
    return [part for part in parts if not any(part in text for text in said)]


def test_every_quoted_message_is_in_the_code() -> None:
    said = [text for path in source.modules().values() for text in texts(ast.parse(path.read_text()))]
    quoted = [block.text for block in pages.blocks((pages.DOCS / "troubleshooting.md").read_text())]
    assert len(quoted) >= 30 and len(set(quoted)) == len(quoted)
    assert {one: lost for one in quoted if (lost := missing(one, said))} == {}
    assert missing("config.model.path is full: name … folder", said) == ["config.model.path is full: name"]
