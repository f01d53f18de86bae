"""The runner of a job's commands: order, exit codes, signals."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch import steps
from tests import source
from vlguard_jax import errors

COMMAND = """
import pathlib, signal, sys
log = pathlib.Path(LOG)
with log.open("a") as file: file.write(NAME + " " + " ".join(sys.argv[1:]) + "\\n")
if sys.argv[1:2] == ["wait"]:
    def stop(*_):
        import os
        if sys.argv[2:]: os.kill(os.getpid(), int(sys.argv[2]))
        sys.exit(75)
    signal.signal(signal.SIGTERM, stop)
    with log.open("a") as file: file.write("ready\\n")
    while True: signal.pause()
if sys.argv[1:2] == ["die"]:
    import os; os.kill(os.getpid(), int(sys.argv[2]))
sys.exit(int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else 0)
"""


@pytest.fixture
def package(tmp_path: pathlib.Path) -> pathlib.Path:
    """A package called vlguard_jax whose commands note that they ran; returns the log."""
    folder = tmp_path / "vlguard_jax"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for name in ("train", "evaluate"):
        (folder / f"{name}.py").write_text(
            COMMAND.replace("LOG", repr(str(tmp_path / "log"))).replace("NAME", repr(name))
        )
    return tmp_path / "log"


def start(package: pathlib.Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    command = [sys.executable, str(source.ROOT / "launch" / "steps.py"), *arguments]
    return subprocess.Popen(command, env=environment, cwd=package.parent, text=True)


def test_split():
    assert steps.split(["train", "--a=1", "--then", "evaluate", "--then"]) == [["train", "--a=1"], ["evaluate"]]
    assert steps.split([]) == []
    assert steps.EXIT_RESTART == errors.EXIT_RESTART


def test_commands_run_in_order(package):
    assert start(package, "train", "x", "--then", "evaluate", "y").wait(source.PATIENCE) == 0
    assert package.read_text() == "train x\nevaluate y\n"


@pytest.mark.parametrize(
    ("what", "code"), [("75", 75), ("2", 2), ("143", 75), ("die 9", 137), ("die 15", 75), ("die 11", 139)]
)
def test_the_first_failure_ends_the_job(package, what, code):
    """A command that dies of SIGTERM, before it could take it, is to be started again, as one that took it."""
    assert start(package, "train", *what.split(), "--then", "evaluate").wait(source.PATIENCE) == code
    assert package.read_text() == f"train {what}\n"


@pytest.mark.parametrize("what", ["wait", "wait 11"])
def test_sigterm_reaches_the_command(package, what):
    """It saves and ends with 75, or dies of it on the way; the job ends with 75, and the next command is not
    started."""
    process = start(package, "train", *what.split(), "--then", "evaluate")
    deadline = time.monotonic() + source.PATIENCE
    while not (package.exists() and "ready" in package.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(source.PATIENCE) == 75
    assert "evaluate" not in package.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_between_two_commands_ends_the_job_with_its_code(number, code, monkeypatch):
    """As it does within one: who presses Ctrl-C, or a loop that starts again after 75, must not be told to go on."""
    monkeypatch.setattr(signal, "signal", lambda to, handler: handler(to, None) if to == number else None)
    assert steps.run([["train"]]) == code
