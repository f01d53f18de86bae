"""The judge of `make faults` is judged: each kind of misdeed is seen, and sound behaviour is not called one."""

from __future__ import annotations

from collections.abc import Callable
import ctypes
import os
import pathlib
import subprocess
import time

import ml_dtypes
import numpy as np
import pytest

from tests.faults import sandbox
from vlguard_jax import errors


class _Raw(errors.UserError):
    """A refusal whose message did not go through the boundary for a terminal's text."""

    raw = ""

    def __str__(self) -> str:
        return self.raw


def _refuse_raw(message: str) -> Callable[[], object]:
    def read() -> object:
        error = _Raw("no")
        error.raw = message
        raise error

    return read


def _refuse(message: str) -> Callable[[], object]:
    def read() -> object:
        raise errors.UserError(message)

    return read


def _fail() -> object:
    raise ValueError("what others throw")


def _spin() -> object:
    while True:
        pass


def _shrink_bfloat16() -> object:
    """What a pickle's BUILD did to the type that the whole process shares."""
    np.dtype(ml_dtypes.bfloat16).__setstate__((3, "<", None, None, None, 1, 1, 0))
    return 1


def _write(path: str) -> Callable[[], object]:
    return lambda: pathlib.Path(path).write_text("x")


def _peek() -> object:
    return pathlib.Path("../outside/secret").read_text()


CASES: dict[str, tuple[Callable[[], object], object, str]] = {
    "the right value": (lambda: [1, "a"], [1, "a"], sandbox.HARMLESS),
    "any value": (lambda: 7, sandbox.Anything, sandbox.HARMLESS),
    "another value": (lambda: [1, "b"], [1, "a"], sandbox.WRONG),
    "a value where none is right": (lambda: 7, sandbox.Nothing, sandbox.WRONG),
    "a refusal": (_refuse("file: no; do this"), sandbox.Nothing, sandbox.REFUSED),
    "a refusal of two lines": (_refuse_raw("no\nway"), sandbox.Nothing, sandbox.TRACEBACK),
    "a refusal that commands the terminal": (_refuse_raw("\u001b[2J"), sandbox.Nothing, sandbox.TRACEBACK),
    "a refusal that turns the line round": (_refuse_raw("a\u202eb"), sandbox.Nothing, sandbox.TRACEBACK),
    "an endless refusal": (_refuse_raw("x" * 10_000), sandbox.Nothing, sandbox.TRACEBACK),
    "an exception": (_fail, sandbox.Nothing, sandbox.TRACEBACK),
    "a shell": (lambda: os.system("true"), sandbox.Anything, sandbox.EXECUTED),
    "a program": (lambda: subprocess.run(["true"]).returncode, sandbox.Anything, sandbox.EXECUTED),
    "a changed type": (_shrink_bfloat16, sandbox.Anything, sandbox.EXECUTED),
    "a file outside": (_write("../escaped"), sandbox.Anything, sandbox.ESCAPED),
    "a file inside": (_write("inside"), 1, sandbox.HARMLESS),
    "a look outside": (_peek, sandbox.Anything, sandbox.ESCAPED),
    "a crash": (lambda: ctypes.string_at(0), sandbox.Anything, sandbox.CRASHED),
    "much memory": (lambda: (b"x" * (3 << 29))[0], 120, sandbox.MEMORY_OUT),
    "too much memory": (lambda: bytes(6 << 30)[0], 0, sandbox.MEMORY_OUT),
}


@pytest.mark.parametrize("name", CASES)
def test_each_misdeed_is_seen(name: str, tmp_path: pathlib.Path) -> None:
    read, right, word = CASES[name]
    outcome = sandbox.run(sandbox.Trial(name, read, right), _folder(tmp_path))
    assert outcome.word == word, outcome


def test_a_refusal_of_sound_input_is_seen(tmp_path: pathlib.Path) -> None:
    trial = sandbox.Trial("sound", _refuse("no"), 1, must_read=True)
    assert sandbox.run(trial, _folder(tmp_path)).word == sandbox.OVER_REFUSED


def test_work_without_end_is_seen(tmp_path: pathlib.Path) -> None:
    trial = sandbox.Trial("spin", _spin, sandbox.Anything)
    assert sandbox.run(trial, _folder(tmp_path), seconds=1).word == sandbox.TIME_OUT


def test_waiting_without_end_is_seen(tmp_path: pathlib.Path) -> None:
    trial = sandbox.Trial("wait", lambda: time.sleep(3600), sandbox.Anything)
    assert sandbox.run(trial, _folder(tmp_path), wait=0.5).word == sandbox.TIME_OUT


def _folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("not yours")
    (tmp_path / "in").mkdir()
    return tmp_path / "in"
