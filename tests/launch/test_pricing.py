"""What a whole table would cost: each part as `plan` has it, arms and sums by hand."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from launch import pricing
from tests import source
from tests.launch import rehearsal
from tests.launch import renderings
from tests.launch import test_experiments
from tests.safety import test_configs
from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.planning import chips
from vlguard_jax.planning import run

FIGURE5 = rehearsal.EXPERIMENTS / "figure5.toml"


@pytest.fixture(scope="module")
def figure5() -> list[pricing.Priced]:
    return pricing.price(FIGURE5, dollars=2.0)


def test_each_part_is_what_plan_says(figure5):
    """A job of Figure 5 by hand: 500 + 5,000 conversations for three epochs, then 442 questions."""
    values = test_configs.get_config(source.ROOT / "configs" / "train" / "llava_v15_7b_posthoc.py")
    values.data.sources.vlguard.count, values.run.save_every, values.seed = 500, 50, 0
    train = settings_lib.resolve(values, settings_lib.TrainConfig)
    values = test_configs.get_config(source.ROOT / "configs" / "eval" / "vlguard.py", "released")
    values.model.path, values.benchmark.subsets = "liuhaotian/llava-v1.5-7b", ("unsafes",)
    asked = settings_lib.resolve(values, settings_lib.EvalConfig)
    place = chips.parse("v5e:4x4")
    trained, answered = (run.planner(one, price=2.0)(one, place) for one in (train, asked))
    job = next(one for one in figure5 if one.name == "figure5-random-7b-0")
    assert [(part.run, part.workdir) for part in job.parts] == [("train", "train"), ("evaluate", "vlguard")]
    assert job.parts[0].hours == pytest.approx(trained.hours["total"])
    assert job.parts[1].hours == pytest.approx(answered.answers.hours["total"])
    assert job.parts[1].most_hours == pytest.approx(answered.hours["total"])
    assert job.dollars == pytest.approx(2.0 * 16 * job.hours())


def test_arms_and_sums(figure5):
    found = pricing.as_json(figure5)
    assert [(arm["arm"], arm["jobs"]) for arm in found["arms"]] == [
        ("base/7b", 1),
        ("random/7b", 3),
        ("no_privacy/7b", 3),
    ]
    assert found["dollars"] == pytest.approx(sum(job["dollars"] for job in found["jobs"]))
    assert found["dollars"] == pytest.approx(sum(arm["dollars"] for arm in found["arms"]))
    assert found["chip_hours"] == pytest.approx(16 * sum(arm["hours"] for arm in found["arms"]))
    assert found["dollars"] < found["most_dollars"] and found["fits"] is True
    assert len({job["hours"] for job in found["jobs"] if job["arm"] == "random/7b"}) == 1


def test_another_accelerator_and_none_with_a_price():
    found = pricing.price(FIGURE5, "a100:8")
    assert {one.topology.name for one in found} == {"a100:8"}
    assert all(one.hours("train") > 0 for one in found if one.arm != "base/7b")


def test_what_a_job_would_be_refused_for_is_named(tmp_path):
    """16 rows at a time on 32 chips: the launch file's job is named."""
    text = (renderings.EXAMPLES / "sweep.toml").read_text()
    path = tmp_path / "sweep.toml"
    path.write_text(text.replace('"data.sources.llava_mix.path"', '"run.rows" = 8\n"data.sources.llava_mix.path"'))
    with pytest.raises(
        errors.UserError, match=r"job vlguard-7b-posthoc-0, train: config\.run\.rows=8 must be a multiple"
    ):
        pricing.price(path)


def test_the_command_prints_and_writes(tmp_path):
    command = [sys.executable, "-m", "vlguard_jax.plan", "--sweep", "figure5"]
    done = subprocess.run([*command, f"--json={tmp_path / 'p.json'}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "7 jobs, by formula" in done.stdout and "no_privacy/7b" in done.stdout
    (charged,) = [note for note in json.loads((tmp_path / "p.json").read_text())["notes"] if "dollars" in note]
    assert charged.startswith("dollars: on demand (") and charged.endswith(
        "of spot machines, whose price --price takes"
    )
    assert json.loads((tmp_path / "p.json").read_text())["fits"] is True
    mistaken = subprocess.run([*command, "more"], cwd=source.ROOT, capture_output=True, text=True)
    assert mistaken.returncode == 2 and "--sweep FILE" in mistaken.stderr


def test_a_file_that_is_not_there():
    with pytest.raises(errors.UserError, match="no such file"):
        pricing.price(rehearsal.EXPERIMENTS / "no.toml")


@pytest.mark.parametrize("path", test_experiments.SOME, ids=lambda path: path.stem)
def test_every_experiment_fits_and_has_a_price(path: pathlib.Path):
    found = pricing.price(path)
    assert found and all(one.fits and one.dollars for one in found)
