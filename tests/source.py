"""The package's source as the tests of the house rules see it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
# Seconds after which a program that a test started counts as hung: far beyond what it takes on the busiest machine.
# Nothing else waits by the clock.
PATIENCE = 900
PACKAGE = ROOT / "vlguard_jax"


def modules() -> dict[str, pathlib.Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def entry_points() -> list[str]:
    """Modules that run as `python -m NAME`: those that call `cli.run`."""
    return [name for name, path in modules().items() if "cli.run(" in path.read_text() and name != "vlguard_jax.cli"]


def imports(path: pathlib.Path, known: frozenset[str] = frozenset()) -> Iterator[tuple[str, int]]:
    """(dotted module, line) of every import statement, late ones included; `from package import module` names the
    module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in known else node.module), node.lineno
