"""The input-wait benchmark runs in miniature and says what the loop logged."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import source

TINY = ("--layers=1", "--width=64", "--size=28", "--batch=2", "--steps=3")


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT), "XLA_FLAGS": ""}
    command = [sys.executable, "benchmarks/input_wait.py", *arguments]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.more
def test_one_object() -> None:
    done = script("--json", *TINY)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [line["step"] for line in found["steps"]] == [1, 2, 3] and found["bar"] == 0.02
    assert all(0 <= line["input_wait"] <= 1 and line["tokens"] > 0 for line in found["steps"])
    counted = found["steps"][1:]
    seconds = sum(line["step_seconds"] for line in counted)
    assert found["input_wait"] == pytest.approx(
        sum(line["input_wait"] * line["step_seconds"] for line in counted) / seconds
    )
    assert found["pictures_per_second"] == pytest.approx(4 / seconds)


@pytest.mark.more
def test_table_and_bad_arguments() -> None:
    done = script(*TINY, "--threads=0")
    assert done.returncode == 0, done.stderr
    assert "waiting for input" in done.stdout and "not counted" in done.stdout and "0 threads" in done.stdout
    done = script("now")
    assert done.returncode == 2 and done.stderr.startswith("error: input_wait.py takes")
