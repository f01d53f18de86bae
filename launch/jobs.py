"""All jobs of a launch file for one target: checked, rendered, written."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib
import shlex

from launch import configs
from launch import spec as spec_lib
from launch import targets
from launch import texts
from vlguard_jax import errors
from vlguard_jax import files as files_lib

_LEFT = "checkpoints|model|best|tensorboard|wandb"  # of a job's folders, in the bucket


@dataclasses.dataclass(frozen=True)
class Launch:
    """The result of a launch file: its jobs and all files by name."""

    target: str
    jobs: tuple[spec_lib.Job, ...]
    files: dict[str, str]
    start: tuple[str, ...]


def prepare(path: pathlib.Path, target: str) -> Launch:
    """Read, check and render a launch file.

    Raises:
      UserError: anything wrong with the file, the configs it names, or the target for it.
    """
    targets.find(target)
    return render(spec_lib.read(path), target)


def render(spec: spec_lib.Spec, target: str) -> Launch:
    """As `prepare`, of a launch file that was read."""
    jobs = spec_lib.jobs(spec)
    files: dict[str, str] = {}
    start: list[str] = []
    for job in jobs:
        targets.check(target, job)
        configs.check(job)
        rendered = targets.TARGETS[target].files(job)
        files |= rendered.files
        start += rendered.start
    for name, text in files.items():
        if len(text.encode()) > targets.LARGEST_FILE:
            raise errors.UserError(
                f"{name} would have {len(text.encode()):,} bytes; {target} takes {targets.LARGEST_FILE:,}: shorten"
                " env, overrides"
            )
    files["start.sh"] = _start(target, start)
    if spec.sweep or spec.arms:
        files["gather.sh"] = _gather(spec, jobs)
    return Launch(target, tuple(jobs), files, tuple(start))


def _start(target: str, commands: list[str]) -> str:
    # The launchers of tpu-vm and gce run until their job has ended; those of a sweep run in parallel.
    beside = target in ("tpu-vm", "gce") and len(commands) > 1
    lines = [f"{command} >{command.split()[-1]}.log 2>&1 &" if beside else command for command in commands]
    return "\n".join(
        ["#!/usr/bin/env bash", "set -eu", 'cd "$(dirname "$0")"', *lines, *(["wait"] if beside else []), ""]
    )


def _gather(spec: spec_lib.Spec, jobs: list[spec_lib.Job]) -> str:
    remote = spec.bucket.startswith("gs://")
    root = "results" if remote else f"{spec_lib.seen(spec)}/runs"
    lines = [
        "#!/usr/bin/env bash",
        "# The results of all cells in one table; run it where vlguard_jax is installed, as often as you like.",
        "set -eu",
    ]
    if remote:
        # Checkpoints, models and event files are not copied.
        url = shlex.quote(f"{spec.bucket.rstrip('/')}/runs")
        lines += [
            f"mkdir -p {root}",
            f"gcloud storage rsync --recursive --exclude='.*/({_LEFT})/.*' {url} {root}",
        ]
    cells = [f"{job.name}={label(job) or spec.name}" for job in jobs]
    command = [
        *("python", "-m", "vlguard_jax.gather"),
        f"--root={root}",
        f"--out={spec.name}.html",
        f"--markdown={spec.name}.md",
        *cells,
    ]
    lines.append(shlex.join(command))
    if spec.paper:
        flags = f"--paper={spec.paper} --markdown={spec.name}-paper.md"
        lines.append(f"python -m vlguard_jax.report {shlex.quote(f'{root}/{spec.name}')}-* {flags}")
    return "\n".join([*lines, ""])


def label(job: spec_lib.Job) -> str:
    """What the jobs have in common that are seeds of one arm."""
    return "/".join(texts.write(value) for axis, value in job.cell.items() if axis != "seed")


def write(launch: Launch, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Write all files below `folder`; yields their paths.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in launch.files.items():
            files_lib.write_text(folder / name, text)
            yield folder / name
    except OSError as e:
        raise errors.UserError(f"--out={folder} cannot be written: {e}") from e


def shown(launch: Launch) -> str:
    """What would be written and started, as text."""
    lines = [f"{len(launch.jobs)} job(s) for {launch.target} ({targets.TARGETS[launch.target].what})"]
    for job in launch.jobs:
        slices = f" x {job.spec.slices} slices" if job.spec.slices > 1 else ""
        spot = ", spot" if job.spec.spot else ""
        chips = job.accelerator.chips * job.spec.slices
        lines.append(f"  {job.name}: {job.accelerator.name}{slices} ({chips} chips{spot}), results in {job.folder}")
    for name, text in launch.files.items():
        lines += [f"--- {name}", text.rstrip("\n")]
    return "\n".join(lines)
