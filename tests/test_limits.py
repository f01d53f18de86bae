"""The limits' table in docs/security.md, and that each limit has its reason."""

from __future__ import annotations

import re

from tests import source
from vlguard_jax import limits

_LINE = re.compile(r"([A-Z_]+(?:, [A-Z_]+)*) = [^#]+  # (.+)")


def rows() -> list[str]:
    """What limits.py holds, as rows of the table."""
    found = []
    for line in (source.ROOT / "vlguard_jax" / "limits.py").read_text().splitlines():
        if match := _LINE.fullmatch(line):
            names, reason = match.groups()
            values = [getattr(limits, name) for name in names.split(", ")]
            shown = ", ".join(f"{value:,}" if isinstance(value, int) else f"{value:g}" for value in values)
            found.append(f"| `{names}` | {shown} | {reason} |")
    return found


def test_every_limit_has_a_reason_in_its_line() -> None:
    named = {name for row in rows() for name in re.findall(r"[A-Z_]+", row.split("|")[1])}
    assert named == {name for name in vars(limits) if name.isupper()}


def test_the_table_lists_what_limits_holds() -> None:
    page = (source.ROOT / "docs" / "security.md").read_text()
    shown = [line for line in page.splitlines() if re.match(r"\| `[A-Z_, ]+` \|", line)]
    assert shown == rows(), "put these rows into docs/security.md:\n" + "\n".join(rows())
