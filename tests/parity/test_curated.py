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
from vlguard_jax import errors

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


def test_a_checkpoint_is_asked_on_the_engine(tmp_path: pathlib.Path) -> None:
    """A model that has learnt nothing replies nothing of use: every picture is left out with the reason, after all
    tries, and the same command again asks it nothing."""
    world = world_lib.build(tmp_path, 3, 1, 1)
    (tmp_path / "prompt.txt").write_text("what is it ? $taxonomy $refusals $language")
    (tmp_path / "small.toml").write_text('[[node]]\nname = "a"\n[[node]]\nname = "b"\nparent = "a"\n')
    ask = {"prompt": str(tmp_path / "prompt.txt"), "taxonomy": str(tmp_path / "small.toml"), "tries": 2}
    ask |= {"refusals": "short"}
    decode = {"max_new_tokens": 4, "batch_size": 4}
    model = {"path": str(stand.folder() / "init")}
    config = made.config(world, "", top={"answerer": "checkpoint"}, ask=ask, model=model, decode=decode)
    left = []
    for _ in range(2):
        with pytest.raises(errors.UserError, match="of 0 records in 0 groups of like pictures none is left for train"):
            made.curate(config, tmp_path / "run")
        left.append((tmp_path / "run" / "replies.jsonl").read_bytes())
    lines = [json.loads(line) for line in left[0].splitlines()]
    assert left[0] == left[1] and len(lines) == 2 * (3 + 1 + 2 * len(world_lib.FAULTS))
    assert {line["model"] for line in lines} == {"init"} and all(line["reply_tokens"] <= 4 for line in lines)
    dropped = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert {one["reason"] for one in dropped if one["name"].startswith("a/")} <= {"not JSON", "cut", "empty"}
