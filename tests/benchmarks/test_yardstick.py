"""The yardstick measures what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import yardstick
from tests import source


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    command = [sys.executable, "benchmarks/yardstick.py", *arguments]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)


def test_one_object_and_bad_arguments() -> None:
    done = script("--json", "--times=1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found) == ["compile_seconds", "product_seconds"] and min(found.values()) > 0
    done = script("--times=0")
    assert done.returncode == 2 and "--times" in done.stderr


def test_each_call_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, own = [], jax.stages.Lowered.compile
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered: compiled.append(lowered) or own(lowered))
    for _ in range(2):
        assert yardstick.compilation().as_text().count(" dot(") >= 6 * yardstick.LAYERS
    assert len({id(lowered) for lowered in compiled}) == 2


def test_the_product_is_one() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, yardstick.SIDE, yardstick.SIDE), np.float32)
    found = yardstick.product()()
    np.testing.assert_allclose(found[:2, :2], a[:2].astype(np.float64) @ b[:, :2], rtol=1e-3, atol=1e-2)
