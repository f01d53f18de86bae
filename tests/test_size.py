"""Nothing grows without a ceiling: files under 400 lines, functions under 60, entry points under 100."""

from __future__ import annotations

import ast

from tests import source

FOLDERS = ("vlguard_jax", "tests", "configs", "benchmarks", "launch")
FILES = sorted(path for folder in FOLDERS for path in (source.ROOT / folder).rglob("*.py"))
FORBIDDEN = {"util", "utils", "misc", "common", "helpers"}


def long_functions(tree: ast.AST, limit: int) -> list[str]:
    """Functions of `limit` or more lines, decorators not counted, as "name: lines"."""
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    sizes = {f"{f.name} (line {f.lineno})": (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    return [f"{name}: {size}" for name, size in sizes.items() if size >= limit]


def test_size_and_name() -> None:
    found = []
    for path in FILES:
        text, name = path.read_text(), path.relative_to(source.ROOT)
        lines = len(text.splitlines())
        found += [f"{name}: {lines} lines"] if lines >= 400 else []
        found += [f"{name}: {long}" for long in long_functions(ast.parse(text), 60)]
        found += [f"{name}: says nothing of what is in it"] if path.stem in FORBIDDEN else []
    assert len(FILES) > 100 and not found


def test_entry_points_are_short() -> None:
    sizes = {name: len(source.modules()[name].read_text().splitlines()) for name in source.entry_points()}
    assert sizes and all(size < 100 for size in sizes.values()), sizes


def test_the_checker_counts_lines() -> None:
    body = "\n".join("    x = 1" for _ in range(59))
    assert long_functions(ast.parse(f"def f():\n{body}"), 60) == ["f (line 1): 60"]
    assert not long_functions(ast.parse(f"def f():\n{body}"), 61)
