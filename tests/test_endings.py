"""How a command ends when the machine fails: one line, and a code; as a user sees it."""

from __future__ import annotations

import os
import pathlib
import resource
import subprocess
import sys

import pytest

from tests import source

PROGRAM = "import errno, os, sys\nfrom vlguard_jax import cli, errors\n\ndef main(_):\n{body}\n\ncli.run(main)"


def run(body: str, *, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that does `body`; `shell` follows it on the command line."""
    program = PROGRAM.replace("{body}", "\n".join(f"  {line}" for line in body.splitlines()))
    command = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {shell}', sys.executable, program]
    given = {**os.environ, **environment}
    return subprocess.run(command, cwd=source.ROOT, env=given, capture_output=True, text=True, timeout=source.PATIENCE)


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (
            "raise OSError(errno.ENOSPC, 'x', '/w/file')",
            2,
            "error: /w/file: no space left on the disk; what was finished before is kept;",
        ),
        (
            "raise OSError(errno.EIO, 'x', '/w/file')",
            75,
            "error: /w/file: input/output error; what was finished before is kept, start",
        ),
        (
            "try: raise OSError(errno.EROFS, 'x', '/w')\nexcept OSError as e: raise RuntimeError('save') from e",
            2,
            "error: /w: the file system",
        ),
        ("raise MemoryError", 2, "error: out of memory;"),
        ("raise errors.UserError('file.json: broken')", 2, "error: file.json: broken\n"),
        ("raise KeyboardInterrupt", 130, "stopped by Ctrl-C\n"),
        ("os.mkdir('/etc/passwd/x')", 2, "error: /etc/passwd/x: a part of this path is a file"),
        ("open('/' + 'x' * 300)", 2, "error: /xxx"),
    ],
)
def test_one_line_and_a_code(body: str, code: int, line: str) -> None:
    done = run(body)
    assert done.returncode == code and done.stderr.startswith(line) and done.stderr.count("\n") == 1, done.stderr
    with_trace = run(body, VLGUARD_DEBUG="1")
    assert with_trace.returncode == code and "Traceback" in with_trace.stderr and with_trace.stderr.count(line) == 1


def test_what_is_left_at_the_end_is_not_taken_apart() -> None:
    """Python's last collection, which took seconds after SIGTERM on a busy machine, finds nothing."""
    count = "lambda phase, _: phase == 'start' and os.write(1, b'%d\\n' % len(gc.get_objects()))"
    done = run(f"import gc\ngc.callbacks.append({count})\nreturn 75")
    assert done.returncode == 75 and int(done.stdout.splitlines()[-1]) < 1000, done


def test_a_fault_of_ours_keeps_its_trace() -> None:
    done = run("raise ValueError('ours')")
    assert done.returncode == 1 and done.stderr.endswith("ValueError: ours\n") and "Traceback" in done.stderr


def test_what_ends_a_task_in_the_background_is_told_once() -> None:
    """Orbax writes arrays in tasks of asyncio, which logs the failure of each."""
    body = "import asyncio, gc\nasync def fails(): raise OSError(errno.ENOSPC, 'x', '/w')\nasync def both():"
    body += "\n  one = asyncio.ensure_future(fails())\n  await asyncio.sleep(0)\n  del one"
    body += "\nasyncio.run(both())\ngc.collect()\nraise OSError(errno.ENOSPC, 'x', '/w')"
    done = run(body)
    assert done.returncode == 2 and done.stderr.count("/w") == 1 and "Traceback" not in done.stderr, done.stderr
    assert "Task exception was never retrieved" in run(body, VLGUARD_DEBUG="1").stderr


def test_output_that_cannot_be_written() -> None:
    done = run("print('text' * 9)", shell="> /dev/full", PYTHONUNBUFFERED="")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: standard output: no space left on the disk")
    done = run("for i in range(10**5): print('text')", shell="| true")
    assert (done.returncode, done.stderr.count("\n")) == (75, 1)
    assert done.stderr.startswith("error: the reader of the output has gone")


@pytest.mark.parametrize("command", ["settings", "train --config rehearsal --print_config"])
def test_a_listing_may_be_cut(command: str) -> None:
    """By `head` and its like: nothing is to be started again."""
    line = f"set -o pipefail; {sys.executable} -m vlguard_jax {command} | true"
    done = subprocess.run(
        ["bash", "-c", line], cwd=source.ROOT, capture_output=True, text=True, timeout=source.PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("platform", ["nonsense", "cuda", "tpu"])
def test_a_device_that_is_not_there(platform: str) -> None:
    done = run("import jax\njax.devices()", JAX_PLATFORMS=platform)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: JAX_PLATFORMS={platform}: no such device can be used here")
    assert "Traceback" not in done.stderr


def test_a_limit_of_the_shell(tmp_path: pathlib.Path) -> None:
    """A file of more than `ulimit -f`: what was there is still there, and nothing beside it."""
    (tmp_path / "x").write_text("before")
    body = (
        "import pathlib\nfrom vlguard_jax import"
        f" files\nfiles.write_bytes(pathlib.Path({str(tmp_path / 'x')!r}), bytes(10**6))"
    )
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, {resource.RLIM_INFINITY}))\n"
    done = run(limit + body)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: {tmp_path / 'x'}: the file is larger than")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "before")]
