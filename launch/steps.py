"""Runs the commands of a job one after another, as one process that a scheduler can stop and restart.

  python launch/steps.py train --config=FILE --workdir=DIR --then evaluate --config=FILE --workdir=DIR

Each part between --then is `python -m vlguard_jax.PART`. The first that fails ends the job with its exit code: 75 means
"saved, restart me", and every command resumes where it stopped. SIGTERM and SIGINT are passed on to the running
command; none is started after them. A command killed by SIGTERM before it could handle it is to be restarted as well.
"""

from __future__ import annotations

from collections.abc import Sequence
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

THEN = "--then"
EXIT_RESTART = 75  # vlguard_jax.errors; not imported, so that a wrong installation is reported by the command itself


def split(arguments: Sequence[str]) -> list[list[str]]:
    """The commands between the `--then`s, without empty ones."""
    commands: list[list[str]] = [[]]
    for argument in arguments:
        if argument == THEN:
            commands.append([])
        else:
            commands[-1].append(argument)
    return [command for command in commands if command]


def run(commands: Sequence[Sequence[str]]) -> int:
    """Run each as a module of vlguard_jax; returns the first exit code that is not 0: 128 + N for a command killed by
    signal N, but 75 where that was SIGTERM or followed one."""
    running: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        if running:
            running[-1].send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    import subprocess  # after the handlers: a signal before them would not reach the command

    for name, *arguments in commands:
        if received:
            return _as_exit_code(-received[0], received)
        process = subprocess.Popen([sys.executable, "-m", f"vlguard_jax.{name}", *arguments])
        early = bool(received)  # while it started, when there was no process to pass the signal on to
        running.append(process)
        if early:
            process.send_signal(received[0])
        if code := process.wait():
            return _as_exit_code(code, received)
    return 0


def _as_exit_code(code: int, received: Sequence[int]) -> int:
    died = code if code > 0 else 128 - code
    stopped = died == 128 + signal.SIGTERM or (code < 0 and signal.SIGTERM in received)
    return EXIT_RESTART if stopped else died


if __name__ == "__main__":
    sys.exit(run(split(sys.argv[1:])))
