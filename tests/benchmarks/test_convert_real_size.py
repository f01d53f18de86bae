"""The benchmark of conversion at real size runs, in miniature, and every tensor comes back."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import source


@pytest.mark.parity
def test_in_miniature(tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    command = [sys.executable, "benchmarks/convert_real_size.py", "--size=tiny", "--json", f"--dir={tmp_path / 'new'}"]
    done = subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["stage"] for one in found["convert"]] == ["start -> orbax", "orbax -> hf", "hf -> llava"]
    assert found["evaluate"]["answers"] == 1 and not (tmp_path / "new").exists()
