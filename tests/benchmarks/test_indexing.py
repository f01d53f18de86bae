"""The benchmark of a run's start, on few conversations."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from tests import source


@pytest.mark.more
def test_every_figure_is_there(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "benchmarks/indexing.py", "--count=700", "--big=3", "--json", f"--folder={tmp_path}"]
    ended = subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, timeout=source.PATIENCE)
    assert ended.returncode == 0, ended.stderr[-2000:]
    figures = json.loads(ended.stdout.splitlines()[-1])
    for name in (
        "conversations_per_second",
        "template_conversations_per_second",
        "plan_seconds",
        "resume_seconds",
        "big_gib",
        "resume_first_batch_seconds",
    ):
        assert figures[name] > 0, name
    # Shares of pictures and lengths are those of the model.
    assert 780 < figures["mean_length"] < 920 and figures["big_gib"] < 1
    assert not (tmp_path / "big.json").exists()
