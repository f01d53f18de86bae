"""What is printed, in each of the forms that a command can be asked for."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich import table as rich_table

from vlguard_jax import progress
from vlguard_jax import terminal


@pytest.fixture
def form(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the form for one test."""
    return lambda name: monkeypatch.setattr(terminal, "_form", name)


def everything() -> None:
    """A note by either way, a table, a result, and a little progress."""
    terminal.say("one", "two \x1b[31m")
    console = terminal.console()
    console.print("three")
    made = rich_table.Table("name")
    made.add_row("value")
    console.print(made)
    terminal.console(result=True).print("the result")
    with progress.answers(0, 2, 2, console=console) as advance:
        advance(3)


def test_json(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    form("json")
    everything()
    assert terminal.event("update", step=3, loss=0.5)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [one["event"] for one in events]
    assert kinds == ["note"] * 5 + ["progress"] * 2 + ["update"]
    assert [one["text"] for one in events[:3]] == ["one", "two \x1b[31m", "three"] and "value" in events[3]["text"]
    assert events[5] == {"event": "progress", "text": "answers 0/2, " + progress.COMPILING, "done": 0, "total": 2}
    assert events[-1] == {"event": "update", "step": 3, "loss": 0.5}
    with progress.answers(0, 2, 2, console=terminal.console(quiet=True)) as advance:  # another process than the first
        advance(3)
    assert capsys.readouterr().out == ""


def test_quiet(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    form("quiet")
    everything()
    assert capsys.readouterr().out == "the result\n"
    assert not terminal.event("update", step=3)


@pytest.mark.parametrize("forced", ["", "1"])  # by notebooks and some CI services, in pipes too
@pytest.mark.parametrize("name", ["plain", "auto"])
def test_lines(
    name: str, forced: str, form: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a log is: no bar, no colour, no empty line."""
    monkeypatch.setenv("FORCE_COLOR", forced)
    form(name)
    everything()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "one" and "\x1b" not in "".join(lines) and "" not in lines
    assert lines[-2].startswith("answers 0/2") and lines[-1].startswith("answers 1/2")


def test_plain_has_no_bar_in_a_terminal_either(form: Any) -> None:
    seen = io.StringIO()
    console = terminal.console(file=seen, force_terminal=True)
    assert console.is_terminal
    form("plain")
    assert not terminal.console(file=seen).is_terminal
