"""What the program gets in the end: each target's files, read as that target's own reader does.

The rules are those of Kubernetes' `expansion.Expand`, of XPK 1.16.0 (`parse_env_config`, `format_env_dict`,
`get_main_container`), of SkyPilot 0.14.1 (`make_task_bash_script`), and of bash, which runs here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib
import re
import shlex
import subprocess

import yaml

from launch import jobs
from tests.launch import manifests

NEEDED = {"model.path": "/m", "benchmark.path": "/b"}  # settings without which an evaluation is refused
SPEC = """
name = {name}
accelerator = {accelerator}
bucket = {bucket}
image = "registry/vlguard:1"
git = {{ url = "https://example.org/vlguard", ref = "main" }}
project = "project"
zone = "us-east5-a"
cluster = "cluster"
checkout = {checkout}
secrets = {secrets}

[[steps]]
run = "evaluate"
config = "configs/eval/vlguard.py:llava"
overrides = {{ {overrides} }}
arguments = [{arguments}]

[env]
{env}
"""
XPK = """apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
spec:
  replicatedJobs:
    - name: slice-job
      template:
        spec:
          template:
            spec:
              containers:
              - name: jax-tpu
                image: {image}
                env: {env}
                command:
                - bash
                - -c
                - |
                  echo XPK Start: $(date);
                  ({command}) & PID=$!;
                  wait $PID;
                  exit $?
"""
# Prints its arguments and its environment.
PROGRAM = """#!/bin/bash
printf '%s\\0' "$@" >{out}/arguments
env -0 >{out}/environment
"""


def toml(text: str) -> str:
    """A basic string of TOML; braces are doubled, which a launch file asks for."""
    escaped = "".join(f"\\U{ord(c):08x}" if ord(c) < 32 or ord(c) == 127 or c in '"\\' else c for c in text)
    return '"' + escaped.replace("{", "{{").replace("}", "}}") + '"'


def launch(
    target: str,
    folder: pathlib.Path,
    env: Mapping[str, str],
    overrides: Mapping[str, str],
    arguments: Sequence[str] = (),
    *,
    name: str = "job",
    secrets: Sequence[str] = (),
    bucket: str = "/bucket",
    more: str = "",
) -> jobs.Launch:
    """A launch file with these values, prepared for a target; SLURM's checkout is `folder`, `bucket` its shared
    folder."""
    text = SPEC.format(
        name=toml(name),
        accelerator='"h100:8"' if target == "slurm" else '"v6e-4"',
        bucket=toml(bucket if target == "slurm" else "gs://bucket"),
        checkout=toml(str(folder)),
        secrets=f"[{', '.join(map(toml, secrets))}]",
        overrides=", ".join(f"{toml(key)} = {toml(value)}" for key, value in {**NEEDED, **overrides}.items()),
        arguments=", ".join(map(toml, arguments)),
        env="\n".join(f"{toml(key)} = {toml(value)}" for key, value in env.items()),
    )
    path = folder / "spec.toml"
    path.write_text(text + more, encoding="utf-8")
    return manifests.prepare(path, target)


def expected(overrides: Mapping[str, str], arguments: Sequence[str], name: str = "job") -> list[str]:
    """The arguments that `launch` asks for."""
    settings = [f"--config.{key}={value}" for key, value in {**NEEDED, **overrides}.items()]
    start = [
        "launch/steps.py",
        "evaluate",
        "--config=configs/eval/vlguard.py:llava",
        f"--workdir=/bucket/runs/{name}/evaluate",
    ]
    return [*start, *settings, *arguments]


def received(
    target: str, made: jobs.Launch, folder: pathlib.Path, secrets: Mapping[str, str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """(arguments, environment) of the program when `made` runs; `folder` is empty but for what `launch` wrote."""
    (job,) = made.jobs
    tools = folder / "tools"
    for place in (
        tools / "python",
        folder / ".venv" / "bin" / "python",
        folder / "vlguard_jax" / ".venv" / "bin" / "python",
    ):
        _program(place, PROGRAM.format(out=shlex.quote(str(folder))))
    outside = {**os.environ, **(secrets or {}), "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(folder)}
    if target == "gke":
        return _pod(made.files[f"{job.name}.yaml"])
    if target == "xpk":
        return _xpk(made.files[f"{job.name}.sh"], folder, outside)
    if target == "skypilot":
        task = yaml.safe_load(made.files[f"{job.name}.yaml"])
        script = [f"export {key}={shlex.quote(str(value))}" for key, value in task["envs"].items()]
        _bash("\n".join([*script, task["run"]]), folder, outside)
    elif target == "slurm":
        _program(tools / "srun", '#!/bin/bash\nshift\nexec "$@"\n')
        _bash(made.files[f"{job.name}.sbatch"], folder, outside)
    else:
        _program(tools / "mountpoint", "#!/bin/bash\n")
        text = made.files[f"{job.name}-host.sh"].replace("export HOME=/root", "")
        text = re.sub("^exit_file=.*$", f"exit_file={shlex.quote(str(folder / 'exit'))}", text, flags=re.MULTILINE)
        _bash(text, folder, outside)
    return _told(folder)


def words_of(command: str, script: str, folder: pathlib.Path) -> list[str]:
    """The arguments of the last `command` that a script starts; `gcloud` is there and does nothing."""
    tools = folder / "tools"
    _program(tools / "gcloud", "#!/bin/bash\n")
    _program(tools / command, PROGRAM.format(out=shlex.quote(str(folder))))
    _bash(script, folder, {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}, cwd=folder)
    return _told(folder)[0]


def _program(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _bash(text: str, folder: pathlib.Path, environment: Mapping[str, str], cwd: pathlib.Path | None = None) -> None:
    script = folder / "script"
    script.write_text(text, encoding="utf-8")
    done = subprocess.run(["bash", str(script)], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def _told(folder: pathlib.Path) -> tuple[list[str], dict[str, str]]:
    arguments = (folder / "arguments").read_bytes().decode().split("\0")[:-1]
    lines = (folder / "environment").read_bytes().decode().split("\0")[:-1]
    return arguments, dict(line.split("=", 1) for line in lines)


def _pod(manifest: str) -> tuple[list[str], dict[str, str]]:
    container = _container(go_yaml(manifest))
    environment = _variables(container)
    return [container["command"][1], *(expand(argument, environment) for argument in container["args"])], environment


def _container(manifest: Mapping) -> Mapping:
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]


def _variables(container: Mapping) -> dict[str, str]:
    environment: dict[str, str] = {}
    for variable in container["env"]:
        assert isinstance(variable["name"], str)
        if "value" in variable:
            assert isinstance(variable["value"], str)
            environment[variable["name"]] = expand(variable["value"], environment)
    return environment


def expand(text: str, environment: Mapping[str, str]) -> str:
    """$(NAME) as Kubernetes replaces it in an argument or a variable; $$ is $."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def go_yaml(text: str):
    """YAML as Go's reader takes it, which refuses some escapes that others know (`kubectl` is asked itself where it is
    installed)."""
    assert not re.search(r"(?<!\\)(\\\\)*\\(/|u[dD][89abAB])", text), "an escape that Go's reader does not know"
    return yaml.safe_load(text)


def _xpk(script: str, folder: pathlib.Path, environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    container = _container(go_yaml(xpk_manifest(script, folder, environment)))
    assert container["image"] == "registry/vlguard:1"
    variables = _variables(container)
    _bash(expand(container["command"][2], variables), folder, {"PATH": environment["PATH"], **variables})
    return _told(folder)


def xpk_manifest(script: str, folder: pathlib.Path, environment: Mapping[str, str]) -> str:
    """What XPK makes of the command in `script`: it pastes the words into its manifest as they are."""
    _program(folder / "tools" / "xpk", PROGRAM.format(out=shlex.quote(str(folder))))
    _bash(script, folder, environment)
    given, _ = _told(folder)
    pattern = re.compile(r"(^[a-zA-Z_][a-zA-Z0-9_]*?)(?:=(.*))?$", re.M)
    pasted = ""
    for word in given:
        if word.startswith("--env="):
            match = pattern.match(word.removeprefix("--env="))
            assert match
            pasted += f'\n                - name: {match[1]}\n                  value: "{match[2]}"'
    values = {word.split("=")[0]: word.split("=", 1)[1] for word in given if "=" in word}
    return XPK.format(
        name=values["--workload"], image=values["--docker-image"], env=pasted, command=values["--command"]
    )
