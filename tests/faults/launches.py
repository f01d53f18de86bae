"""Hostile launch files: values that would become commands, paths that climb, placeholders that swell."""

from __future__ import annotations

import pathlib
import random
import re
from typing import Any

from launch import configs
from launch import jobs
from tests.faults import sandbox
from tests.launch import manifests

SOUND: dict[str, Any] = {
    "name": "try",
    "accelerator": "v5e:4x4",
    "bucket": "gs://place",
    "image": "registry/image:1",
    "project": "p",
    "zone": "us-west4-a",
    "cluster": "c",
    "queue": "q",
    "account": "acc",
    "env": {"A": "b"},
    "steps": [{"run": "train", "config": "configs/train/llava_v15_7b_posthoc.py", "workdir": "train"}],
}
TARGETS = ("gke", "xpk", "gce", "tpu-vm", "skypilot", "slurm")
BAD = (
    "a\ntouch ran",
    "a\r\ntouch ran",
    "$(touch ran)",
    "`touch ran`",
    "a; touch ran",
    "' && touch ran && '",
    '"; touch ran; "',
    "a\0b",
    "\u001b[2J",
    "\u202egpj",
    "../../../etc",
    "/etc/cron.d",
    "{name:>30000000}",
    "{name!r}",
    "{name.__class__}",
    "{",
    "x" * 100_000,
    "--help",
    "#SBATCH --wrap=touch",
    "",
)


def toml(value: Any) -> str:
    """One value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    escape = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escape.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in value) + '"'


def _rendered(path: pathlib.Path, target: str) -> object:
    """The files of the job, none of whose lines may begin with what was smuggled in."""
    launch = manifests.prepare(path, target)
    text = jobs.shown(launch)
    assert not re.search(r"^\s*(touch ran|&& touch)", text, re.M), "a line break became a command"
    assert "\u001b" not in text and "\0" not in text, "control characters are printed"
    return True


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A launch file with one hostile value, for one target."""
    configs._command("train")  # asks a process for the command's flags; remembered, so that the trial has none to start
    values, target = dict(SOUND), rng.choice(TARGETS)
    if target == "slurm":
        values |= {"accelerator": "h100:8", "bucket": "/shared", "checkout": "/shared/checkout"}
    kind = rng.choice(["sound", "value", "value", "step", "env", "outside", "text"])
    if kind == "value":
        key = rng.choice(["name", "bucket", "image", "project", "zone", "cluster", "queue", "account", "accelerator"])
        values[key] = rng.choice(BAD)
        kind = f"value of {key}"
    elif kind == "step":
        key = rng.choice(["run", "workdir", "config", "overrides", "arguments"])
        bad = rng.choice(BAD)
        step = {"overrides": {bad: bad} if rng.random() < 0.5 else {"model.path": bad}, "arguments": [bad]}.get(
            key, bad
        )
        values["steps"] = [values["steps"][0] | {key: step}]
        kind = f"step's {key}"
    elif kind == "env":
        values["env"] = {rng.choice(["A", *BAD]): rng.choice(BAD)}
    elif kind == "outside":
        program = folder / "evil.py"
        program.write_text("import os\nos.system('touch ran')\ndef get_config(): return None\n")
        path = rng.choice([str(program), "../" * 20 + str(program)[1:], f"configs/../{program}"])
        values["steps"] = [values["steps"][0] | {"config": path}]
    text = "".join(f"{k} = {toml(v)}\n" for k, v in values.items() if k != "steps") + "".join(
        "[[steps]]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in step.items()) for step in values["steps"]
    )
    data = bytearray(text.encode())
    if kind == "text":
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
    (folder / "job.toml").write_bytes(data)
    return sandbox.Trial(f"{target}: {kind}", lambda: _rendered(folder / "job.toml", target), sandbox.Anything)
