"""The scaling benchmark shows every usual slice and where the batch ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import source


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    command = [sys.executable, "benchmarks/scaling.py", *arguments]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)


def test_one_object() -> None:
    done = script("--json", "--chips=v5e", "--largest=256")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["chips"]["v5e"]
    chips = [line["chips"] for line in found["slices"]]
    assert chips == sorted(chips) and chips[0] >= 8 and chips[-1] == 256
    base = next(line for line in found["slices"] if line["topology"] == found["base"])
    assert base["fits"] and base["speedup"] == base["efficiency"] == 1
    for line in found["slices"]:
        assert line["speedup"] == pytest.approx(base["step_seconds"] / line["step_seconds"])
    stopped = [line["chips"] for line in found["slices"] if line["stops"]]
    assert found["stops_at"] == stopped[0] <= 256  # 128 conversations cannot fill 256 chips


@pytest.mark.more
def test_table_and_bad_arguments() -> None:
    done = script("--chips=h100", "--largest=16")
    assert done.returncode == 0 and "h100:16" in done.stdout and "speed-up" in done.stdout, done.stderr
    done = script("--chips=h101")
    assert done.returncode == 2 and "h101" in done.stderr


def test_what_cannot_be_compiled_here_is_said() -> None:
    done = script("--chips=a100", "--largest=8", "--compile")
    assert done.returncode == 2 and "a100" in done.stderr and "traceback" not in done.stderr.lower(), done.stderr
