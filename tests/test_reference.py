"""What is told of settings is what their definitions say."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests import source
from vlguard_jax import config
from vlguard_jax import ranges
from vlguard_jax import reference
from vlguard_jax.curating import settings as curating
from vlguard_jax.preparing import cleaning

KINDS = [config.TrainConfig, config.EvalConfig, curating.CurateConfig, cleaning.CleanConfig]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, args)]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, timeout=source.PATIENCE)


@pytest.mark.parametrize("kind", KINDS)
def test_all_settings_are_there_with_their_rules(kind):
    found = {one.path: one.rule for one in reference.settings(kind)}
    assert found == ranges.rules(kind)


def test_comments_behind_and_above():
    found = {one.path: one for one in reference.settings(config.TrainConfig)}
    assert found["data.batch_size"].meaning == "conversations per optimizer step"
    assert found["data.batch_size"].default == 128
    assert found["run.rows"].meaning.startswith("rows per device program, 0: all rows")
    assert found["model.template"].meaning.startswith('conversation template. "auto"')
    assert found["model.template"].meaning.endswith("vicuna_v1, llava_v1, mistral_instruct, llava_llama_3")
    assert found["data.sources.*.format"].meaning.startswith('"vlguard": train.json')
    assert found["optimizer.b1"].meaning == ""


def test_words_are_sought_in_names_and_meanings():
    known = reference.settings(config.TrainConfig)
    assert [one.path for one in reference.matching(known, ["LEARNING", "projector"])] == [
        "optimizer.projector_learning_rate"
    ]
    done = run("vlguard_jax.settings", "learning_rate")
    assert done.returncode == 0 and "config.optimizer.learning_rate = 2e-05   a number from 1e-12 to 1" in done.stdout
    none = run("vlguard_jax.settings", "zebra")
    assert (
        none.returncode == 2 and none.stderr.count("\n") == 1 and "no setting of train speaks of 'zebra'" in none.stderr
    )


@pytest.mark.parametrize(
    ("command", "file"), [("train", "configs/train/rehearsal.py"), ("evaluate", "configs/eval/vlguard.py:llava")]
)
def test_a_run_tells_where_its_values_come_from(command, file):
    done = run(f"vlguard_jax.{command}", f"--config={file}", "--config.seed=7", "--print_config")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("config.seed = 7   [command line]   (a whole number") for line in lines)
    assert any("[default]" in line for line in lines) and any(f"[{file}]" in line for line in lines)
    assert not pathlib.Path("runs").joinpath("print_config").exists()


def test_a_source_from_the_command_line_is_told_as_such():
    done = run(
        *("vlguard_jax.train", "--config=configs/train/own_data.py", "--print_config"),
        *("--config.data.sources.mine.path=mine.json", "--config.data.sources.mine.weight=2"),
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("config.data.sources.mine.")]
    assert "config.data.sources.mine.path = 'mine.json'   [command line]   (a text)" in told
    assert "config.data.sources.mine.weight = 2.0   [command line]   (a number from 1e-06 to 1000)" in told
    assert "config.data.sources.mine.count = 0   [default]   (a whole number from 0 to 1000000000)" in told
