"""Starting is quick: the package is light to import and `--help` needs no accelerator library."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from tests import source

HEAVY = ("jax", "torch", "transformers", "numpy", "tensorflow_datasets")


def python(*arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run this Python without any test hook; returns the process and the seconds it took."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=source.ROOT, capture_output=True, text=True, env=dict(os.environ)
    )
    return done, time.monotonic() - started


def test_import_is_light() -> None:
    done, seconds = python("-c", f"import sys, vlguard_jax; print([m for m in {HEAVY!r} if m in sys.modules])")
    print(f"import vlguard_jax: {seconds:.2f} s, the interpreter's start included")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", source.entry_points())
def test_help_is_light(name: str) -> None:
    done, seconds = python("-X", "importtime", "-m", name, "--help")
    print(f"{name} --help: {seconds:.2f} s")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "--" in done.stdout and len(done.stdout.splitlines()) > 3
    imported = set(re.findall(r"\|\s+([\w.]+)$", done.stderr, re.MULTILINE))
    assert "absl.flags" in imported
    assert not imported & {"jax", "torch", "transformers", "flax"}
