"""Bars of long commands count to their end, and say nothing into a pipe that is not asked for."""

from __future__ import annotations

import io

import pytest
from rich import console as rich_console

from vlguard_jax import progress


def test_answers_count(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.answers(2, 6) as advance:
        advance(3)
        advance(1)
    assert "6/6" in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [True, False])
def test_reading_is_shown_on_a_terminal_alone(terminal: bool) -> None:
    out = io.StringIO()
    with progress.reading(rich_console.Console(file=out, force_terminal=terminal, width=80)) as tell:
        tell(3, 4)
    assert ("reading conversations" in out.getvalue()) is terminal
    assert ("75%" in out.getvalue() or "100%" in out.getvalue()) is terminal
