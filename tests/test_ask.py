"""The command as a user types it: a question on standard input, a conversation in a terminal, and mistakes."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import subprocess
import sys

import pytest

from tests import source
from tests.data import stand as data_stand
from tests.training import stand as training_stand

ASK = [sys.executable, "-m", "vlguard_jax", "ask"]
WORDS = "what is the shape ?"


def ask(*arguments: str, given: str = "", **options) -> subprocess.CompletedProcess[str]:
    told = {"input": given, "capture_output": True, "text": True, "cwd": source.ROOT, "timeout": source.PATIENCE}
    return subprocess.run([*ASK, *arguments], **told, **options)


def one_device() -> dict[str, str]:
    return os.environ | {"XLA_FLAGS": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a model's folder or hub id: vlguard ask MODEL [MODEL]"),
        (["a", "b", "c"], "3 models are named, and 2 can be asked side by side"),
        (["none", "--picture", "none.png"], "--picture=none.png: no such picture"),
        (["none", "--config.decoed.max_new_tokens=1"], "did you mean config.decode.max_new_tokens?"),
        (["none", "--config.decode.max_new_tokens=0"], "config.decode.max_new_tokens=0 must be"),
        (["none", "--config", "configs/eval/vlguard.py:released", "--config.judges=('choice_v1',)"], "choice_v1"),
    ],
)
def test_mistakes(arguments: list[str], message: str) -> None:
    done = ask(*arguments, given="Why?")
    assert (done.returncode, done.stdout) == (2, "") and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parity
def test_a_question_on_standard_input(tmp_path: pathlib.Path) -> None:
    model = str(training_stand.folder() / "init")
    path = data_stand.write_picture(tmp_path / "a.png")
    short = ["--config.decode.max_new_tokens=6", "--json", "--picture", str(path)]
    done = ask(model, *short, given=f"{WORDS}\n", env=one_device())
    assert done.returncode == 0, done.stderr
    (answer,) = map(json.loads, done.stdout.splitlines())
    assert answer["model"] == "init" and 1 <= len(answer["ids"]) <= 6
    assert [one["judge"] for one in answer["verdicts"]] == ["keyword_vlguard_v1", "keyword_repaired"]
    assert "init: chat template vicuna_v1" in done.stderr


class Terminal:
    """A conversation in a terminal of its own."""

    def __init__(self, *arguments: str):
        ours, theirs = pty.openpty()
        env = one_device() | {"TERM": "dumb"}
        self.process = subprocess.Popen(
            [*ASK, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=source.ROOT,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: _control(0),
        )
        os.close(theirs)
        self._ours, self.shown = ours, ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def until(self, pattern: str) -> str:
        """What is shown through the first match of a pattern."""
        while (found := re.search(pattern, self.shown)) is None:
            try:
                self.shown += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"ended before {pattern!r}: {self.shown[-2000:]}") from None
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def close(self) -> int:
        try:
            return self.process.wait(source.PATIENCE)
        finally:
            self.process.kill()
            os.close(self._ours)


def _control(terminal: int) -> None:
    """Make a terminal this process's own, whose Ctrl-C it gets."""
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


@pytest.mark.parity
def test_a_conversation_in_a_terminal(tmp_path: pathlib.Path) -> None:
    """Questions, a picture, a mistake, an answer that is stopped, and one after it."""
    path = data_stand.write_picture(tmp_path / "a.png")
    long = ["--config.decode.max_new_tokens=1800", "--config.decode.min_new_tokens=1800"]
    talk = Terminal(str(training_stand.folder() / "init"), *long, "--config.judges=('keyword_vlguard_v1',)")
    try:
        assert "asking init; /help tells what can be typed" in talk.until("> ")
        talk.type("/pictur\n")
        assert "error: '/pictur' is not a command; did you mean '/picture'?" in talk.until("\n> ")
        talk.type(f"/picture {path}\n")
        assert "(this picture comes with the next question)" in talk.until("\n> ")
        talk.type(f"{WORDS}\n")
        talk.until(r"\?\r?\n[^\n]+")  # the answer begins
        talk.type("\x03")
        assert "stopped; the question does not count" in talk.until("\n> ")
        talk.type("\x03")
        assert "(Ctrl-D or /quit leaves)" in talk.until("\n> ")
        talk.type(f"{WORDS}\n")
        assert "[keyword_vlguard_v1: " in talk.until("\n> ")
        talk.type("\x04")
    finally:
        code = talk.close()
    assert code == 0
