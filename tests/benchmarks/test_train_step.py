"""The train-step benchmark in miniature: both sides take the same steps, and a loss that differs is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import source


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT), "XLA_FLAGS": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "benchmarks/train_step.py", *arguments]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.more
def test_one_object() -> None:
    done = script("--json", "--size=tiny", "--steps=2", "--cases=padded,packed")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["ratio_vs_torch"]) == {"tiny"} and set(found["mfu"]) == {"data_sheet", "measured_peak"}
    assert found["losses_agree"] and 0 <= found["loss_difference"] <= found["loss_bound"]
    padded, packed = found["cases"]
    assert padded["computed_over_real"]["ours"] == padded["computed_over_real"]["torch"]
    assert padded["reference_recomputes"] and not packed["reference_recomputes"]
    for line in found["cases"]:
        assert len(line["losses"]) == 6 and len(line["ratios"]) == 2
        # the first update has rate 0, and the second step the same batch
        assert len({ours for ours, _ in line["losses"]}) == 5
        assert all(
            line[side][name] > 0
            for side in ("ours", "torch")
            for name in ("samples_per_second", "tokens_per_second", "tflops", "gib")
        )


@pytest.mark.more
def test_one_side_after_the_other() -> None:
    done = script("--json", "--size=tiny", "--steps=1", "--cases=padded", "--apart")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["losses_agree"] and len(found["cases"][0]["losses"]) == 4


@pytest.mark.more
def test_a_loss_that_differs_fails() -> None:
    done = script("--size=tiny", "--steps=1", "--cases=packed", "--loss_bound=-1")
    assert done.returncode == 1 and "DISAGREE" in done.stdout


@pytest.mark.more
def test_bad_arguments() -> None:
    done = script("--size=7")
    assert done.returncode == 2 and done.stderr.startswith("error: --size=7 is unknown")
