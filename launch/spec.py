"""The launch spec: one TOML file that says what runs, on what, and where its files are; a sweep, perhaps with arms
that differ in their steps, turns it into many jobs.

README.md documents every key. Texts other than name and bucket may contain {bucket} (the bucket as the program sees
it), {job} (the job's folder in it), {name} and the names of the sweep's axes; a literal brace is doubled.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
import dataclasses
import pathlib
import re
import tomllib
import typing
from typing import Annotated, Any

from launch import cells as cells_lib
from launch import machines
from launch import steps as steps_lib
from launch import texts
from launch.texts import Text
from launch.texts import Value
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import ranges
from vlguard_jax.ranges import Range
from vlguard_jax.safety import paper_tables

MOUNT = "/bucket"  # where a gs:// bucket appears on every machine
LONGEST_NAME = 40  # XPK's limit for a workload; names of pods are longer
COMMANDS = ("train", "evaluate", "convert", "prepare", "report", "quickstart")
WITH_WORKDIR = ("train", "evaluate", "quickstart")
EXIT_CODES = "exit_codes"  # folder beside the steps' own where machines leave their exit codes

# Values that are written into scripts and manifests without quotes, or that other tools paste into commands.
_NAME = r"[A-Za-z0-9][-A-Za-z0-9]{0,62}"
FORMS = {
    "accelerator": (r"[A-Za-z0-9][-:A-Za-z0-9]{0,39}", "a name as plan takes it, v5e:4x4 or h100:8"),
    "project": (r"[A-Za-z0-9][-A-Za-z0-9.:]{0,62}", "letters, digits and dashes, a letter first"),
    "zone": (_NAME, "letters, digits and dashes"),
    "cluster": (_NAME, "letters, digits and dashes"),
    "queue": (r"[A-Za-z0-9][-A-Za-z0-9_.,]{0,252}", "letters, digits, '-', '_', '.' and ','"),
    "account": (r"[A-Za-z0-9][-A-Za-z0-9_.@:]{0,252}", "letters, digits, '-', '_', '.', ':' and '@'"),
    "image": (
        r"[A-Za-z0-9][-A-Za-z0-9_.]*(:[0-9]+)?(/[A-Za-z0-9_][-A-Za-z0-9_.]*)+(:[A-Za-z0-9_][-A-Za-z0-9_.]*)?(@[a-z0-9]+:[0-9a-fA-F]+)?",
        "REGISTRY/NAME, with :TAG or @sha256:DIGEST",
    ),
    "checkout": (r"/.*", "a whole path, from /"),
}
GIT = {
    "url": (
        r"(https?|ssh|git|file)://\S+|[A-Za-z0-9_.][-A-Za-z0-9_.]*@[A-Za-z0-9][-A-Za-z0-9.]*:\S+",
        "https://..., ssh://... or NAME@HOST:PATH",
    ),
    "ref": (r"[A-Za-z0-9_][-A-Za-z0-9_./+#]*", "a branch, a tag or a commit"),
}
_FOLDER = r"[A-Za-z0-9_][-A-Za-z0-9_.+=,@]*"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
# Variables that bash sets or reads itself, and those that the launchers set: a value given here would not reach the
# program unchanged.
_TAKEN = re.compile(
    r"_|BASH(|_.*|OPTS|PID)|COMP_WORDBREAKS|DIRSTACK|EPOCH(REALTIME|SECONDS)|EUID|FUNCNAME|GROUPS|HISTCMD|HOME|HOSTNAME|HOSTTYPE|IFS|LINENO|MACHTYPE|OLDPWD|OPT(ARG|ERR|IND)"
    r"|OSTYPE|PATH|PIPESTATUS|POSIXLY_CORRECT|PPID|PWD|RANDOM|SECONDS|SHELL(OPTS)?|SHLVL|SRANDOM|UID"
    r"|JAX_(COORDINATOR_ADDRESS|NUM_PROCESSES|PROCESS_ID)|(POLL|RESTART)_SECONDS"
)


@dataclasses.dataclass(frozen=True)
class Git:
    """The repository that machines without a container get the program from."""

    url: str
    ref: str


@dataclasses.dataclass(frozen=True)
class Step:
    """One command of a job: `python -m vlguard_jax.RUN`."""

    run: str
    config: str = ""
    workdir: str = ""  # below the job's folder; empty: the name of the command
    # "model.path" = "..." for --config.model.path=...
    overrides: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    arguments: tuple[Text, ...] = ()  # anything else, unchanged
    arms: tuple[str, ...] = ()  # of these alone; empty: of all


@dataclasses.dataclass(frozen=True)
class Spec:
    """A launch file."""

    name: str
    accelerator: str
    bucket: str  # gs://NAME, or a folder that all machines share
    steps: tuple[Step, ...]
    slices: Annotated[int, Range(1, 4096)] = 1
    spot: bool = False
    image: str = ""
    git: Git | None = None
    checkout: str = ""  # SLURM: folder with the program and its .venv
    project: str = ""
    zone: str = ""
    cluster: str = ""
    queue: str = ""  # Kueue's LocalQueue, or SLURM's partition
    account: str = ""  # service account (Kubernetes, Compute Engine), or SLURM's account
    hours: Annotated[int, Range(1, 8760)] = 24  # SLURM's time limit of one start
    max_restarts: Annotated[int, Range(0, 10_000)] = 10
    grace_seconds: Annotated[int, Range(1, 86_400)] = 120  # between SIGTERM and the end
    env: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # names of variables whose values are in no file
    offload: bool = False  # the configs keep activations in the host's memory: adds the flags for it
    sweep: Mapping[str, tuple[Value, ...]] = dataclasses.field(default_factory=dict)
    arms: Mapping[str, cells_lib.Arm] = dataclasses.field(default_factory=dict)
    when: tuple[Mapping[str, Value], ...] = ()  # values of axes, and what they change
    paper: str = ""  # table of the paper beside which gather.sh lays the results


FIXED = ("name", "bucket", "secrets", "sweep", "arms", "when", "paper")  # hold no placeholders
CHANGEABLE = ("accelerator", "slices", "spot", "zone", "queue", "hours", "offload")


@dataclasses.dataclass(frozen=True)
class Job:
    """One cell of the sweep, or the whole spec without one; everything filled in."""

    name: str
    cell: Mapping[str, Value]
    spec: Spec
    accelerator: machines.Accelerator
    folder: str  # the job's own, as the program sees it
    commands: tuple[tuple[str, ...], ...]  # arguments of `python -m vlguard_jax.`, one tuple a step


def read(path: pathlib.Path) -> Spec:
    """Read and check a launch file.

    Raises:
      UserError: not readable, unknown or missing keys, wrong types; the nearest known name is given.
    """
    try:
        if not path.is_file():
            raise OSError("no such file" if not path.exists() else "not a file")
        with path.open("rb") as file:
            content = file.read(limits.LAUNCH_BYTES + 1)
        if len(content) > limits.LAUNCH_BYTES:
            raise errors.UserError(f"{path}: a launch file has at most {limits.LAUNCH_BYTES:,} bytes")
        values = tomllib.loads(content.decode("utf-8"))
    # ValueError: not UTF-8, not TOML, a number of thousands of digits
    except (OSError, ValueError, RecursionError) as e:
        raise errors.UserError(f"{path}: not readable as TOML ({str(e).splitlines()[0][:200]})") from e
    try:
        texts.check(values, "")
    except errors.UserError as e:
        raise errors.UserError(f"{path}: {e}") from e
    spec = ranges.build(Spec, values, f"{path}:")
    _check(spec, path)
    return spec


def _check(spec: Spec, path: pathlib.Path) -> None:
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", spec.name):
        raise errors.UserError(
            f"{path}: name {errors.short(spec.name)} must be lower-case letters, digits and dashes, a letter first"
        )
    if not spec.steps:
        raise errors.UserError(f"{path}: steps is empty; give at least one [[steps]]")
    if not spec.bucket.startswith(("gs://", "/")):
        raise errors.UserError(
            f"{path}: bucket {errors.short(spec.bucket)} must be gs://NAME or a folder that all machines share, from /"
        )
    if re.fullmatch(r"gs://[^/]+/.+", spec.bucket):
        whole = "/".join(spec.bucket.split("/")[:3])
        raise errors.UserError(f"{path}: bucket {errors.short(spec.bucket)} must be a whole bucket, {whole}")
    if not re.fullmatch(r"gs://[A-Za-z0-9][-A-Za-z0-9_.]{0,221}/?|/.*", spec.bucket):
        raise errors.UserError(
            f"{path}: bucket {errors.short(spec.bucket)} must be gs:// and letters, digits, '-', '_' and '.'"
        )
    for variable in (*spec.env, *spec.secrets):
        _check_variable(variable, path)
    for variable in spec.secrets:
        if not variable.isupper() or spec.secrets.count(variable) > 1 or variable in spec.env:
            raise errors.UserError(f"{path}: secrets: {variable!r} must be in capitals, unique and not in env")
    for step in spec.steps:
        if step.run not in COMMANDS:
            raise errors.UserError(
                f"{path}: steps: run = {errors.short(step.run)} is not a command{errors.nearest(step.run, COMMANDS)}"
            )
        if step.overrides and not step.config:
            raise errors.UserError(f"{path}: steps: {step.run} has overrides and no config")
        if step.workdir and step.run not in WITH_WORKDIR:
            raise errors.UserError(f"{path}: steps: {step.run} has no workdir; these have: {', '.join(WITH_WORKDIR)}")
        for key in step.overrides:
            if not re.fullmatch(rf"{_VARIABLE}(\.{_VARIABLE})*", key):
                raise errors.UserError(
                    f"{path}: steps: {step.run}: overrides: {errors.short(key)} is not the name of a setting,"
                    " model.path"
                )
    _check_sweep(spec, path)


def _check_variable(name: str, path: pathlib.Path) -> None:
    if not re.fullmatch(_VARIABLE, name):
        raise errors.UserError(f"{path}: {errors.short(name)} is not the name of an environment variable")
    if _TAKEN.fullmatch(name):
        raise errors.UserError(
            f"{path}: the variable {name} is set by the shell or by the launcher; it cannot be given here"
        )


def _check_filled(spec: Spec) -> None:
    """Check what placeholders can change."""
    for key, (pattern, form) in FORMS.items():
        if value := getattr(spec, key):
            texts.match(pattern, value, key, form)
    if spec.git:
        for key, (pattern, form) in GIT.items():
            texts.match(pattern, getattr(spec.git, key), f"git.{key}", form)
    folders: list[str] = []
    for i, step in enumerate(spec.steps):
        if step.run in WITH_WORKDIR:
            folder = step.workdir or step.run
            texts.match(
                rf"{_FOLDER}(/{_FOLDER})*",
                folder,
                f"steps[{i}].workdir",
                "a folder below the job's, without '..', as in tuned/a",
            )
            if folder.split("/")[0] == EXIT_CODES or folder in folders:
                raise errors.UserError(
                    f"steps[{i}].workdir: {folder!r} is taken by"
                    f" {'an earlier step' if folder in folders else 'the launcher'}"
                )
            folders.append(folder)
        if steps_lib.THEN in step.arguments:
            raise errors.UserError(
                f"steps[{i}].arguments: {steps_lib.THEN} separates the commands of a job and cannot be given here"
            )


def _check_sweep(spec: Spec, path: pathlib.Path) -> None:
    cells_lib.check(spec.sweep, spec.arms, path)
    axes = cells_lib.axes(spec.sweep, spec.arms)
    for step in spec.steps:
        for arm in step.arms:
            if arm not in spec.arms:
                near = errors.nearest(arm, spec.arms)
                raise errors.UserError(f"{path}: steps: {step.run}: arms: {errors.short(arm)} is not an arm{near}")
    if spec.paper and spec.paper not in paper_tables.TABLES:
        near = errors.nearest(spec.paper, paper_tables.TABLES)
        raise errors.UserError(f"{path}: paper = {errors.short(spec.paper)} is no table of the paper{near}")
    for rule in spec.when:
        conditions = {key: value for key, value in rule.items() if key in axes}
        for key in rule:
            if key not in conditions and key not in CHANGEABLE:
                raise errors.UserError(
                    f"{path}: when: {errors.short(key)} is not an axis and cannot be"
                    f" changed{errors.nearest(key, (*axes, *CHANGEABLE))}"
                )
        for key, value in conditions.items():
            if value not in axes[key]:
                near = errors.nearest(str(value), tuple(map(str, axes[key])))
                raise errors.UserError(f"{path}: when: {key} = {errors.short(value)} is not in the sweep{near}")
        if not conditions or len(conditions) == len(rule):
            raise errors.UserError(
                f"{path}: when: {errors.short(dict(rule))} must name values of the sweep and what they change"
            )


def jobs(spec: Spec) -> list[Job]:
    """One job per cell of the sweep, in the order of the file.

    Raises:
      UserError: an unknown placeholder or accelerator, a value of the wrong form or out of bounds, a name that is too
        long, or two cells of the same name.
    """
    found = [_job(_changed(spec, cell), cell, own) for cell, own in cells_lib.of(spec.sweep, spec.arms)]
    names = collections.Counter(job.name for job in found)
    for name, count in names.items():
        if count > 1:
            raise errors.UserError(
                f"two cells of the sweep are both called {name!r}; give their values names that differ"
            )
    return found


def seen(spec: Spec) -> str:
    """The bucket as the program sees it."""
    return MOUNT if spec.bucket.startswith("gs://") else spec.bucket.rstrip("/")


def _changed(spec: Spec, cell: Mapping[str, Value]) -> Spec:
    axes = cells_lib.axes(spec.sweep, spec.arms)
    for rule in spec.when:
        changes = {key: value for key, value in rule.items() if key in CHANGEABLE and key not in axes}
        if all(cell.get(key) == value for key, value in rule.items() if key not in changes):
            hints = typing.get_type_hints(Spec, include_extras=True)
            checked = {key: ranges.convert(hints[key], value, f"when: {key}") for key, value in changes.items()}
            spec = dataclasses.replace(spec, **checked)
    return spec


def _job(spec: Spec, cell: Mapping[str, Value], own: Mapping[str, str]) -> Job:
    words = [spec.name, *(re.sub(r"[^a-z0-9]+", "-", texts.write(value).lower()).strip("-") for value in cell.values())]
    name = "-".join(word for word in words if word)
    if len(name) > LONGEST_NAME:
        raise errors.UserError(
            f"the job name {errors.short(name)} has {len(name)} characters; at most {LONGEST_NAME}: shorten name or"
            " the values of the sweep"
        )
    folder = f"{seen(spec)}/runs/{name}"
    known: dict[str, Value] = {"bucket": seen(spec), "job": folder, "name": name, **cell}
    arm = str(cell.get(cells_lib.ARM, ""))
    steps = tuple(step for step in spec.steps if not step.arms or arm in step.arms)
    try:
        if not steps:
            raise errors.UserError("none of the steps is of this arm")
        known |= {key: texts.fill(text, known, f"arms.{arm}.texts.{key}") for key, text in own.items()}
        filled = _filled(dataclasses.replace(spec, steps=steps), known, "")
        _check_filled(filled)
    except errors.UserError as e:
        raise errors.UserError(f"job {name}: {e}") from e
    commands = tuple(_command(step, folder) for step in filled.steps)
    return Job(name, cell, filled, machines.parse(filled.accelerator), folder, commands)


def _filled(value: Any, known: Mapping[str, Value], where: str) -> Any:
    """`value` with the placeholders of all its texts filled in; `where` names it."""
    if isinstance(value, str):
        return texts.fill(value, known, where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [
            field.name for field in dataclasses.fields(value) if not (isinstance(value, Spec) and field.name in FIXED)
        ]
        return dataclasses.replace(
            value, **{n: _filled(getattr(value, n), known, f"{where}.{n}" if where else n) for n in names}
        )
    if isinstance(value, Mapping):
        return {key: _filled(item, known, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_filled(item, known, f"{where}[{i}]") for i, item in enumerate(value))
    return value


def _command(step: Step, folder: str) -> tuple[str, ...]:
    arguments = [step.run]
    if step.config:
        arguments.append(f"--config={step.config}")
    if step.run in WITH_WORKDIR:
        arguments.append(f"--workdir={folder}/{step.workdir or step.run}")
    arguments += [f"--config.{key}={texts.write(value)}" for key, value in step.overrides.items()]
    return (*arguments, *step.arguments)
