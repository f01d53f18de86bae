"""The saving benchmark runs in miniature."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import source


@pytest.mark.more
def test_one_object() -> None:
    tiny = ("--decoder_layers=1", "--decoder_width=64", "--tokens=64", "--plain=2", "--json")
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT), "XLA_FLAGS": ""}
    command = [sys.executable, "benchmarks/saving.py", *tiny]
    done = subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["seconds"]) == 5 and found["checkpoint_bytes"] > 100_000 and found["start_seconds"] > 0
    assert found["cost"] == pytest.approx(found["save_seconds"] / (20 * found["update_seconds"]))
    assert found["bars"] == {"cost": 0.03, "start_seconds": 10.0}
