"""The rendered scripts run against a stand-in for gcloud and for SLURM: lost machines, exit codes, restarts."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from launch import jobs
from tests.launch import clouds
from tests.launch import renderings

MAKES = {"tpu-vm": "compute tpus queued-resources create", "gce": "compute instance-groups managed resize"}
DELETES = {"tpu-vm": "compute tpus queued-resources delete", "gce": "compute instance-groups managed delete"}


def supervise(tmp_path: pathlib.Path, target: str, lives, *, silent: int = 0, restarts: int = 10):
    """Run the launcher of posthoc-7b, two machines, to its end; returns (process, gcloud's calls)."""
    environment = clouds.make(tmp_path, makes=MAKES[target], lives=lives, silent=silent)
    spec = tmp_path / "spec.toml"
    spec.write_text(f"max_restarts = {restarts}\n" + (renderings.EXAMPLES / "posthoc_7b.toml").read_text())
    list(jobs.write(jobs.prepare(spec, target), tmp_path / "out"))
    done = clouds.bash(tmp_path / "out" / "posthoc-7b.sh", environment)
    assert "gcloud has no" not in done.stderr and "exist already" not in done.stderr, done.stderr
    return done, clouds.calls(tmp_path)


@pytest.mark.parametrize("target", MAKES)
def test_lost_machines_are_made_again(tmp_path, target):
    done, calls = supervise(tmp_path, target, ["lost", "lost", [0, 0]])
    assert done.returncode == 0 and "finished" in done.stdout, done.stderr
    commands = [call[0] for call in calls]
    assert commands.count(MAKES[target]) == 3
    assert commands.count(DELETES[target]) == 3  # two lost ones, and the last at the end
    assert commands.index("storage rm") < commands.index(MAKES[target])  # no exit code of an earlier life counts


@pytest.mark.parametrize("target", MAKES)
@pytest.mark.parametrize(("codes", "expected"), [([2, 2], 2), ([0, 1], 1), ([75], 75)])
def test_a_failure_ends_with_its_code_and_frees_the_machines(tmp_path, target, codes, expected):
    done, calls = supervise(tmp_path, target, [codes])
    assert done.returncode == expected
    assert [call[0] for call in calls].count(DELETES[target]) == 1


@pytest.mark.parametrize("target", MAKES)
def test_gives_up_after_max_restarts(tmp_path, target):
    done, calls = supervise(tmp_path, target, ["lost"] * 4, restarts=2)
    assert done.returncode == 1 and "lost 3 times" in done.stderr
    assert [call[0] for call in calls].count(MAKES[target]) == 3


def test_capacity_that_is_refused_is_asked_for_again(tmp_path):
    done, calls = supervise(tmp_path, "tpu-vm", ["refused", [0, 0]])
    assert done.returncode == 0
    assert [call[0] for call in calls].count(MAKES["tpu-vm"]) == 2


@pytest.mark.parametrize("target", MAKES)
def test_an_unanswered_question_is_no_loss(tmp_path, target):
    """While gcloud cannot be reached nothing is deleted or made."""
    done, calls = supervise(tmp_path, target, [[0, 0]], silent=3)
    commands = [call[0] for call in calls]
    assert done.returncode == 0 and commands.count(MAKES[target]) == 1
    assert DELETES[target] not in commands[: commands.index(MAKES[target])]


def test_waits_for_every_machine(tmp_path):
    """One exit code of two is not the end."""
    environment = clouds.make(tmp_path, makes=MAKES["tpu-vm"], lives=[[0]])
    list(jobs.write(jobs.prepare(renderings.EXAMPLES / "posthoc_7b.toml", "tpu-vm"), tmp_path))
    script = (tmp_path / "posthoc-7b.sh").read_text().replace('  sleep "$POLL_SECONDS"\ndone', "  exit 99\ndone")
    (tmp_path / "posthoc-7b.sh").write_text(script)
    assert clouds.bash(tmp_path / "posthoc-7b.sh", environment).returncode == 99


def test_gce_asks_for_one_slice(tmp_path):
    _, calls = supervise(tmp_path, "gce", [[0, 0]])
    by_command = {call[0]: call[1:] for call in calls}
    policy = by_command["compute resource-policies create workload-policy"]
    assert "--accelerator-topology=2x2x2" in policy
    group = by_command["compute instance-groups managed create"]
    assert (
        "--target-size-policy-mode=bulk" in group
        and "--workload-policy=projects/MY-PROJECT/regions/us-east5/resourcePolicies/posthoc-7b" in group
    )
    assert "--size=2" in by_command["compute instance-groups managed resize"]
    assert "--provisioning-model=SPOT" in by_command["compute instance-templates create"]


@pytest.mark.parametrize(
    ("codes", "last", "starts"), [([75, 1, 0, 5], "0", 3), ([2, 0], "2", 1), ([75] * 20, "75", 11)]
)
def test_host_restarts_the_program(tmp_path, codes, last, starts):
    """On 75 and on a crash it starts again, 10 times at most; 0 and 2 are final. The last code goes to the bucket."""
    environment = clouds.make(tmp_path, makes="", lives=[])
    python = tmp_path / "vlguard_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "codes.json").write_text(json.dumps(codes))
    clouds.program(
        python,
        f"""
        import json, os, pathlib, sys
        codes = json.loads(pathlib.Path({str(tmp_path / "codes.json")!r}).read_text())
        pathlib.Path({str(tmp_path / "codes.json")!r}).write_text(json.dumps(codes[1:]))
        assert sys.argv[1] == "launch/steps.py" and os.environ["LIBTPU_INIT_ARGS"] and "HF_TOKEN" in os.environ
        sys.exit(codes[0])
        """,
    )
    clouds.program(tmp_path / "tools" / "mountpoint", "")
    text = (
        renderings.of("tpu-vm")["posthoc-7b-host.sh"]
        .replace("HOME=/root", f"HOME={tmp_path}")
        .replace("/bucket", f"{tmp_path}/bucket")
    )
    (tmp_path / "host.sh").write_text(text)
    done = clouds.bash(tmp_path / "host.sh", environment)
    (written,) = (tmp_path / "bucket" / "runs" / "posthoc-7b" / "exit_codes").iterdir()
    assert written.read_text().strip() == last, done.stderr
    assert len(codes) - len(json.loads((tmp_path / "codes.json").read_text())) == starts


@pytest.mark.parametrize(
    ("code", "restarts", "expected", "requeued"),
    [
        (0, 0, 0, False),
        (75, 0, 0, True),
        (75, 10, 75, False),
        (143, 0, 0, True),
        (143, 10, 143, False),
        (2, 0, 2, False),
        (1, 0, 1, False),
    ],
)
def test_slurm_requeues_on_75(tmp_path, code, restarts, expected, requeued):
    tools = tmp_path / "tools"
    tools.mkdir()
    clouds.program(tools / "srun", f"import sys; sys.exit({code})")
    clouds.program(
        tools / "scontrol",
        f"import pathlib, sys; pathlib.Path({str(tmp_path / 'asked')!r}).write_text(' '.join(sys.argv[1:]))",
    )
    text = renderings.of("slurm")["posthoc-7b.sbatch"].replace("cd /shared/vlguard_jax", f"cd {tmp_path}")
    (tmp_path / "job.sbatch").write_text(text)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    assert clouds.bash(tmp_path / "job.sbatch", {**environment, "HF_TOKEN": "t"}).returncode == expected
    assert (tmp_path / "asked").exists() == requeued
    if requeued:
        assert (tmp_path / "asked").read_text() == "requeue 7"
    environment.pop("HF_TOKEN", None)
    missing = clouds.bash(tmp_path / "job.sbatch", environment)
    assert missing.returncode != 0 and "export HF_TOKEN before sbatch" in missing.stderr


def test_recorded_flags_name_their_source():
    """Every gcloud command of the templates is in the table that the stand-in checks flags against."""
    table = json.loads(clouds.FLAGS.read_text())
    assert table["source"] and table["newer_source"]
    assert set(table["newer"]) <= set(table["commands"])
