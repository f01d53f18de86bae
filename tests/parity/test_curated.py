"""What `curate` writes trains and evaluates by the ordinary commands, in both of its forms alike."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import source
from tests.curating import made
from tests.curating import model as model_lib
from tests.curating import world as world_lib
from tests.training import stand

pytestmark = pytest.mark.parity

STEPS = 2


def command(name: str, config: str, workdir: pathlib.Path, *flags: str) -> str:
    """Run a command; what it printed."""
    line = [sys.executable, "-m", f"vlguard_jax.{name}", f"--config={source.ROOT / 'configs' / config}"]
    own = {"XLA_FLAGS": ""}  # one device
    done = subprocess.run(
        [*line, f"--workdir={workdir}", f"--config.model.path={stand.folder() / 'init'}", *flags],
        cwd=source.ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def losses(workdir: pathlib.Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_it_trains_and_evaluates(tmp_path: pathlib.Path) -> None:
    world = world_lib.build(tmp_path, 30, 1, 1)
    with model_lib.serving(model_lib.Model(world)) as model:
        run = made.curate(made.config(world, model.url, top={"tfds": True}), tmp_path / "curated")
    dataset = run.done.dataset
    small = [f"--config.optimizer.max_steps={STEPS}", "--config.data.batch_size=8", "--config.data.group_size=4"]
    small += ["--config.data.max_len=192", "--config.run.rows=0", "--config.run.tensorboard=False"]
    vlguard = [f"--config.data.sources.vlguard.{k}={v}" for k, v in (("path", dataset), ("images", dataset / "train"))]
    tfds = [
        f"--config.data.sources.vlguard.{k}={v}" for k, v in (("path", dataset), ("images", ""), ("format", "tfds"))
    ]
    said = command("train", "train/rehearsal.py", tmp_path / "a", *small, *vlguard)
    command("train", "train/rehearsal.py", tmp_path / "b", *small, *tfds)
    assert losses(tmp_path / "a") == losses(tmp_path / "b") and len(losses(tmp_path / "a")) == STEPS
    assert "STAND-IN" in said
    asked = ["--config.benchmark.name=vlguard_like", f"--config.benchmark.path={dataset}"]
    command("evaluate", "eval/vlguard.py:llava", tmp_path / "c", *asked, "--config.decode.max_new_tokens=4")
    rows = json.loads((tmp_path / "c" / "summary.json").read_text())
    test = json.loads((dataset / "test.json").read_text())
    safe = sum(record["safe"] for record in test)
    assert {row["subset"]: row["n"] for row in rows} == {
        "unsafes": len(test) - safe,
        "safe_unsafes": safe,
        "safe_safes": safe,
    }
    assert all(row["stand_in"] for row in rows)
