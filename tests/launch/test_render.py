"""Every target's files as they are stored, as bash and YAML, and what a launch file can get wrong."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from launch import jobs
from launch import spec as spec_lib
from launch import targets
from tests import source
from tests.launch import renderings
from vlguard_jax import errors

SIMPLE = (renderings.SPECS / "chip.toml").read_text()


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "launch/render.py", *arguments], cwd=source.ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize("case", renderings.CASES)
def test_files_are_as_stored(case):
    """After a change that is meant: python -m tests.launch.renderings, and look at the difference."""
    stored = {path.name: path.read_text() for path in (renderings.GOLDEN / case).iterdir()}
    assert renderings.stored(case) == stored


@pytest.mark.parametrize("case", renderings.CASES)
def test_bash_reads_every_script(case, tmp_path):
    files = renderings.of(case)
    scripts = {name: text for name, text in files.items() if text.startswith("#!/usr/bin/env bash")}
    for name, text in files.items():
        if name.endswith(".yaml"):
            parts = yaml.safe_load(text)
            scripts |= {f"{name}.{part}": parts[part] for part in ("setup", "run") if part in parts}
    assert scripts
    for name, text in scripts.items():
        path = tmp_path / name
        path.write_text(text)
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_every_target_is_stored():
    assert {target for target, _, _ in renderings.CASES.values()} == set(targets.TARGETS)


def test_program_is_the_same_everywhere():
    """All targets run the same commands with the same settings."""
    (job,) = jobs.prepare(renderings.EXAMPLES / "posthoc_7b.toml", "gke").jobs
    found = targets.arguments(job)
    assert found.count("--then") == 1 and "--config.model.path=/bucket/runs/posthoc-7b/train/model" in found
    for case in ("xpk", "tpu-vm", "gce", "skypilot"):
        text = "".join(renderings.of(case).values())
        assert all(re.sub(r"'", "", argument) in text for argument in found), case
    container = yaml.safe_load(renderings.of("gke")["posthoc-7b.yaml"])["spec"]["replicatedJobs"][0]["template"][
        "spec"
    ]["template"]
    assert container["spec"]["containers"][0]["args"] == found


def test_every_launcher_restarts_on_75():
    assert "--restart-on-exit-codes=75" in renderings.of("xpk")["posthoc-7b.sh"]
    assert yaml.safe_load(renderings.of("skypilot")["posthoc-7b.yaml"])["resources"]["job_recovery"][
        "recover_on_exit_codes"
    ] == [75]
    job_set = yaml.safe_load(renderings.of("gke")["posthoc-7b.yaml"])["spec"]
    assert job_set["failurePolicy"]["maxRestarts"] == 10
    rules = job_set["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    # 2 alone is final; tpu-vm, gce and slurm are run in test_launchers
    assert [rule["onExitCodes"]["values"] for rule in rules] == [[2]]


def test_sweep_makes_a_job_per_cell():
    launch = jobs.prepare(renderings.EXAMPLES / "sweep.toml", "gke")
    assert len(launch.jobs) == 12 and len({job.name for job in launch.jobs}) == 12
    places = {(job.cell["size"], job.cell["arm"]): job.accelerator.name for job in launch.jobs}
    assert {cell for cell, name in places.items() if name == "v5e:4x8"} == {("13b", "posthoc")}
    assert set(places.values()) == {"v5e:4x4", "v5e:4x8"}  # LoRA takes 16 rows at a time, no more chips
    assert launch.files["start.sh"].count("kubectl apply") == 12
    job = next(job for job in launch.jobs if job.name == "vlguard-13b-posthoc-lora-2")
    assert (
        "--config=configs/train/llava_v15_13b_posthoc_lora.py" in job.commands[0]
        and "--config.seed=2" in job.commands[0]
    )
    assert "--config.model_name=13b posthoc_lora" in job.commands[1]


def test_spec_wins_over_the_table_of_flags():
    (job,) = jobs.prepare(renderings.SPECS / "gpus.toml", "gke").jobs
    assert targets.variables(job)["CUDA_DEVICE_MAX_CONNECTIONS"] == "8"


def test_dry_run_prints_and_writes_nothing(tmp_path):
    done = start("--target=gke", "launch/examples/posthoc_7b.toml", "--dry_run", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "posthoc-7b: v5p:2x2x2 (8 chips, spot), results in /bucket/runs/posthoc-7b" in done.stdout
    assert "kind: JobSet" in done.stdout and not (tmp_path / "out").exists()


def test_render_writes_and_says_how_to_start(tmp_path):
    done = start("--target", "xpk", "launch/examples/posthoc_7b.toml", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["posthoc-7b.sh", "start.sh"]
    assert "bash start.sh" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target=gkee", "launch/examples/posthoc_7b.toml", "--dry_run"), "did you mean 'gke'"),
        (("--target=gke", "launch/examples/no.toml", "--dry_run"), "no such file"),
        (("--target=gke", "launch/examples/posthoc_7b.toml"), "--dry_run"),
        (("--target=gke", "--dry_run"), "one launch file"),
        (("launch/examples/posthoc_7b.toml", "--dry_run"), "name a target"),
    ],
)
def test_wrong_commands_get_one_line(arguments, message):
    done = start(*arguments)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("target", "change", "message"),
    [
        (
            "gce",
            ("accelerator", "acelerator"),
            "spec.toml: acelerator is not a setting; did you mean 'accelerator'",
        ),
        ("gce", ("v6e:1x1", "v6e:3x3"), "the nearest is v6e:2x4"),
        ("gce", ("v6e:1x1", "v6e-3"), "the nearest is v6e-4"),
        ("gce", ("v6e:1x1", "v9e:1x1"), "did you mean"),
        ("gce", ("v6e:1x1", "v5e:1x1"), "makes no groups of v5e"),
        ("gce", ("v6e:1x1", "h100:8"), "cannot run h100:8; these can: gke, skypilot, slurm"),
        ("gce", ('zone = "us-east5-b"', ""), "needs zone"),
        ("gce", ("gs://MY-BUCKET", "/shared"), "needs bucket"),
        ("gce", ("gs://MY-BUCKET", "MY-BUCKET"), "must be gs://NAME"),
        ("gce", ('bucket = "gs://MY-BUCKET"', ""), "spec.toml: bucket is missing"),
        ("gce", ("gs://MY-BUCKET", "gs://MY-BUCKET/sub"), "must be a whole bucket"),
        ("gke", ("v6e:1x1", "v6e:1x1"), "needs image"),
        ("tpu-vm", ("v6e:1x1", "tpu7x:2x2x1"), "the Cloud TPU API has no tpu7x"),
        ("slurm", ("v6e:1x1", "h100:8"), "needs checkout"),
        ("gce", ('run = "evaluate"', 'run = "evalute"'), "did you mean 'evaluate'"),
        ("gce", ("vlguard.py:llava", "vlgard.py:llava"), "did you mean 'eval/vlguard'"),
        (
            "gce",
            ('"model.path"', '"model.paht"'),
            "config.model.paht is not a setting; did you mean config.model.path?",
        ),
        ("gce", ("{bucket}/models", "{buket}/models"), "{buket} is not known; did you mean 'bucket'"),
        ("gce", ('name = "one-chip"', 'name = "One chip"'), "lower-case letters"),
        ("gce", ('name = "one-chip"', f'name = "{"x" * 41}"'), "at most 40"),
        ("gce", ('name = "one-chip"', 'name = "one-chip"\nslices = 2'), "runs one slice"),
        (
            "gce",
            ('name = "one-chip"', 'name = "one-chip"\nslices = "2"'),
            "slices='2' must be a whole number from 1 to 4096",
        ),
        ("gce", ('name = "one-chip"', 'name = "one-chip"\nspot = 1'), "spot=1 must be True or False"),
        (
            "gce",
            ('name = "one-chip"', 'name = "one-chip"\nenv = { "A B" = 1 }'),
            "not the name of an environment variable",
        ),
        ("gce", ("[[steps]]", "[sweep]\nseed = [1, 1]\n[[steps]]"), "different values"),
        (
            "gce",
            ("[[steps]]", "[[when]]\nseed = 3\nspot = true\n[sweep]\nseed = [1, 2]\n[[steps]]"),
            "is not in the sweep",
        ),
        (
            "gce",
            ("[[steps]]", "[[when]]\nseed = 1\nspto = true\n[sweep]\nseed = [1, 2]\n[[steps]]"),
            "did you mean 'spot'",
        ),
        ("gce", ("[[steps]]", '[sweep]\narm = ["a b", "a-b"]\n[[steps]]'), "both called"),
    ],
)
def test_what_is_wrong_is_named(target, change, message, tmp_path):
    assert change[0] in SIMPLE
    path = tmp_path / "spec.toml"
    path.write_text(SIMPLE.replace(*change))
    with pytest.raises(errors.UserError, match=re.escape(message)) as caught:
        jobs.prepare(path, target)
    assert "\n" not in str(caught.value)


def test_braces_can_be_written(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(SIMPLE.replace("{bucket}/models/llava-v1.5-7b", "{{x}}"))
    (job,) = jobs.prepare(path, "gce").jobs
    assert "--config.model.path={x}" in job.commands[0]


def test_a_bucket_path_stays_without_a_mount():
    spec = spec_lib.read(renderings.EXAMPLES / "h100.toml")
    (job,) = spec_lib.jobs(spec)
    assert job.folder == "/shared/vlguard/runs/posthoc-7b"


def test_overrides_are_read_as_the_flags_are(tmp_path):
    """Numbers given as text, as a sweep gives them, pass; a word for a number does not."""
    path = tmp_path / "spec.toml"
    good = SIMPLE.replace(
        '"model.path" =', '"seed" = "3", "decode.max_new_tokens" = 5, "withhold_text" = true, "model.path" ='
    )
    path.write_text(good)
    (job,) = jobs.prepare(path, "gce").jobs
    assert {"--config.seed=3", "--config.decode.max_new_tokens=5", "--config.withhold_text=true"} <= set(
        job.commands[0]
    )
    path.write_text(good.replace('"seed" = "3"', '"seed" = "three"'))
    with pytest.raises(errors.UserError, match=re.escape("--config.seed=three: invalid literal")):
        jobs.prepare(path, "gce")


def test_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    done = start("--target=xpk", "launch/examples/posthoc_7b.toml", f"--out={tmp_path / 'file'}")
    assert done.returncode == 2 and "cannot be written" in done.stderr


def test_examples_are_all_rendered():
    used = {path for _, path, _ in renderings.CASES.values()}
    assert set(renderings.EXAMPLES.glob("*.toml")) <= used
    assert {path.name for path in renderings.GOLDEN.iterdir()} == set(renderings.CASES)
