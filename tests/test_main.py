"""One name for all commands: the same code, output and exit code as `python -m` with the module's own name."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests import source
from vlguard_jax import __main__ as one


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *args]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, timeout=source.PATIENCE)


@pytest.mark.parametrize("command", ["train", "quickstart"])
def test_a_command_is_the_module_of_its_name(command: str) -> None:
    ours, theirs = run("vlguard_jax", command, "--help"), run(f"vlguard_jax.{command}", "--help")
    assert ours.stdout == theirs.stdout and "--workdir" in ours.stdout and ours.returncode == 0
    ours, theirs = run("vlguard_jax", command, "x"), run(f"vlguard_jax.{command}", "x")
    assert (ours.stderr, ours.returncode) == (theirs.stderr, 2) and ours.stderr.startswith("error: ")


def test_every_entry_point_is_a_command() -> None:
    found = {path.stem for path in (source.ROOT / "vlguard_jax").glob("*.py") if "cli.run(main" in path.read_text()}
    found |= {path.parent.name for path in (source.ROOT / "vlguard_jax").glob("*/__main__.py")}
    assert found == set(one.COMMANDS)
    listed = run("vlguard_jax")
    assert listed.returncode == 0 and all(f"  {name} " in listed.stdout for name in one.COMMANDS)


def test_a_wrong_name_gets_the_nearest() -> None:
    done = run("vlguard_jax", "evalute")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "did you mean 'evaluate'?" in done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vlguard ev", ["evaluate "]),
        ("vlguard train --work", ["--workdir="]),
        ("vlguard train --config.optimizer.l", ["--config.optimizer.learning_rate="]),
        ("vlguard evaluate --config.decode.max", ["--config.decode.max_new_tokens="]),
        ("vlguard train --config reh", ["rehearsal "]),
        ("vlguard plan --config llava_v15_7b_posthoc_l", []),  # also the name of a published one
        ("vlguard prepare ind", ["index "]),
        ("vlguard prepare index --o", ["--out="]),
        ("vlguard train --config train/reh", ["train/rehearsal "]),
        ("vlguard nothing --x", []),
        ("vlguard train 'open", []),
    ],
)
def test_completion(line: str, expected: list[str]) -> None:
    """As a shell asks."""
    command, env = [sys.executable, "-m", "vlguard_jax", "--complete"], os.environ | {"COMP_LINE": line}
    done = subprocess.run(
        command, cwd=source.ROOT, env=env, capture_output=True, text=True, timeout=source.PATIENCE, check=True
    )
    assert [word for word in done.stdout.splitlines() if word] == expected


def test_a_shell_completes(tmp_path: pathlib.Path) -> None:
    """bash itself asks the completer."""
    program = tmp_path / "vlguard"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vlguard_jax "$@"\n')
    program.chmod(0o755)
    asked = 'eval "$(vlguard --completion)"; complete -p vlguard; COMP_LINE="vlguard cur" vlguard --complete'
    code = f"PATH={tmp_path}:$PATH; {asked}"
    done = subprocess.run(
        ["bash", "-c", code], cwd=source.ROOT, capture_output=True, text=True, timeout=source.PATIENCE, check=True
    )
    first, second = done.stdout.splitlines()
    assert "vlguard --complete" in first and second == "curate "
