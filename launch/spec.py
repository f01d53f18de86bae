"""The launch spec: one TOML file that says what runs, on what, and where its files are; a sweep makes many jobs of it.

README.md documents every key. Texts may hold {bucket} (the bucket as the program sees it), {job} (the job's folder there), {name} and the
names of the sweep's axes; a brace itself is doubled.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import itertools
import pathlib
import re
import string
import tomllib
import typing
from typing import Any

from launch import machines
from vlguard_jax import errors

MOUNT = "/bucket"  # where a gs:// bucket appears on every machine
LONGEST_NAME = 40  # XPK's limit for a workload; names of pods are longer
COMMANDS = ("train", "evaluate", "convert", "prepare", "report", "quickstart")
WITH_WORKDIR = ("train", "evaluate", "quickstart")

Value = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class Git:
    """Where machines without a container get the program from."""

    url: str
    ref: str


@dataclasses.dataclass(frozen=True)
class Step:
    """One command of a job: `python -m vlguard_jax.RUN`."""

    run: str
    config: str = ""
    workdir: str = ""  # below the job's folder; empty: the name of the command
    overrides: Mapping[str, Value] = dataclasses.field(default_factory=dict)  # "model.path" = "..." for --config.model.path=...
    arguments: tuple[str, ...] = ()  # anything else, as it stands


@dataclasses.dataclass(frozen=True)
class Spec:
    """A launch file."""

    name: str
    accelerator: str
    bucket: str  # gs://NAME, or a folder that all machines share
    steps: tuple[Step, ...]
    slices: int = 1
    spot: bool = False
    image: str = ""
    git: Git | None = None
    checkout: str = ""  # SLURM: folder with the program and its .venv
    project: str = ""
    zone: str = ""
    cluster: str = ""
    queue: str = ""  # Kueue's LocalQueue, or SLURM's partition
    account: str = ""  # service account (Kubernetes, Compute Engine), or SLURM's account
    hours: int = 24  # SLURM's time limit of one start
    max_restarts: int = 10
    grace_seconds: int = 120  # between SIGTERM and the end
    env: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # names of variables whose values stand in no file
    offload: bool = False  # the configs keep activations in the host's memory: adds the flags for it
    sweep: Mapping[str, tuple[Value, ...]] = dataclasses.field(default_factory=dict)
    when: tuple[Mapping[str, Value], ...] = ()  # values of axes, and what they change


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
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise errors.UserError(f"{path}: not readable as TOML ({e})") from e
    spec = _build(Spec, values, str(path))
    _check(spec, path)
    return spec


def _build(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise errors.UserError(f"{where}: must be a table of keys, not {values!r}")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise errors.UserError(f"{where}: {key!r} is not a key of a launch file{errors.nearest(key, hints)}")
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING and field.name not in values:
            raise errors.UserError(f"{where}: key {field.name!r} is missing")
    return kind(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint == Git | None:
        return _build(Git, value, where)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise errors.UserError(f"{where} must be a list, not {value!r}")
        return tuple(_convert(inside[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise errors.UserError(f"{where} must be a table, not {value!r}")
        return {str(key): _convert(inside[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint == Value:
        if not isinstance(value, str | int | float):  # bool is an int
            raise errors.UserError(f"{where} must be a text, a number or true/false, not {value!r}")
        return value
    if type(value) is not hint:
        raise errors.UserError(f"{where} must be of type {hint.__name__}, not {value!r}")
    return value


def _check(spec: Spec, path: pathlib.Path) -> None:
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", spec.name):
        raise errors.UserError(f"{path}: name {spec.name!r} must be lower-case letters, digits and dashes, a letter first")
    if not spec.steps:
        raise errors.UserError(f"{path}: steps is empty; give at least one [[steps]]")
    if not spec.bucket.startswith(("gs://", "/")):
        raise errors.UserError(f"{path}: bucket {spec.bucket!r} must be gs://NAME or a folder that all machines share, from /")
    if re.fullmatch(r"gs://[^/]+/.+", spec.bucket):
        raise errors.UserError(f"{path}: bucket {spec.bucket!r} must be a whole bucket, {'/'.join(spec.bucket.split('/')[:3])}")
    for key in ("slices", "hours", "grace_seconds"):
        if getattr(spec, key) < 1:
            raise errors.UserError(f"{path}: {key} = {getattr(spec, key)} must be at least 1")
    if spec.max_restarts < 0:
        raise errors.UserError(f"{path}: max_restarts = {spec.max_restarts} must be at least 0")
    for variable in (*spec.env, *spec.secrets):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
            raise errors.UserError(f"{path}: {variable!r} is not the name of an environment variable")
    for step in spec.steps:
        if step.run not in COMMANDS:
            raise errors.UserError(f"{path}: steps: run = {step.run!r} is not a command{errors.nearest(step.run, COMMANDS)}")
        if step.overrides and not step.config:
            raise errors.UserError(f"{path}: steps: {step.run} has overrides and no config")
    _check_sweep(spec, path)


def _check_sweep(spec: Spec, path: pathlib.Path) -> None:
    for axis, values in spec.sweep.items():
        if axis in ("bucket", "job", "name") or not axis.isidentifier():
            raise errors.UserError(f"{path}: sweep: {axis!r} cannot be the name of an axis")
        if not values or len(set(map(str, values))) < len(values):
            raise errors.UserError(f"{path}: sweep.{axis} must be a list of different values, not {list(values)}")
    for rule in spec.when:
        conditions = {key: value for key, value in rule.items() if key in spec.sweep}
        for key in rule:
            if key not in conditions and key not in CHANGEABLE:
                raise errors.UserError(
                    f"{path}: when: {key!r} is no axis and cannot be changed{errors.nearest(key, (*spec.sweep, *CHANGEABLE))}"
                )
        for key, value in conditions.items():
            if value not in spec.sweep[key]:
                raise errors.UserError(f"{path}: when: {key} = {value!r} is not in the sweep{errors.nearest(str(value), spec.sweep[key])}")
        if not conditions or len(conditions) == len(rule):
            raise errors.UserError(f"{path}: when: {dict(rule)} must name values of the sweep and what they change")


def jobs(spec: Spec) -> list[Job]:
    """One job per cell of the sweep, in the order of the file.

    Raises:
      UserError: an unknown placeholder or accelerator, a name that is too long, two cells of the same name.
    """
    cells = [dict(zip(spec.sweep, values, strict=True)) for values in itertools.product(*spec.sweep.values())]
    found = [_job(_changed(spec, cell), cell) for cell in cells]
    names = [job.name for job in found]
    for name in names:
        if names.count(name) > 1:
            raise errors.UserError(f"two cells of the sweep are both called {name!r}; give their values names that differ")
    return found


def seen(spec: Spec) -> str:
    """The bucket as the program sees it."""
    return MOUNT if spec.bucket.startswith("gs://") else spec.bucket.rstrip("/")


def _changed(spec: Spec, cell: Mapping[str, Value]) -> Spec:
    for rule in spec.when:
        if all(cell[key] == value for key, value in rule.items() if key in cell):
            changes = {key: value for key, value in rule.items() if key not in cell}
            hints = typing.get_type_hints(Spec)
            checked: dict[str, Any] = {key: _convert(hints[key], value, f"when: {key}") for key, value in changes.items()}
            spec = dataclasses.replace(spec, **checked)
    return spec


def _job(spec: Spec, cell: Mapping[str, Value]) -> Job:
    words = [spec.name, *(re.sub(r"[^a-z0-9]+", "-", str(value).lower()).strip("-") for value in cell.values())]
    name = "-".join(word for word in words if word)
    if len(name) > LONGEST_NAME:
        raise errors.UserError(
            f"the job name {name!r} has {len(name)} characters; at most {LONGEST_NAME}: shorten name or the values of the sweep"
        )
    folder = f"{seen(spec)}/runs/{name}"
    known: dict[str, Value] = {"bucket": seen(spec), "job": folder, "name": name, **cell}
    filled = _filled(spec, known)
    commands = tuple(_command(step, folder) for step in filled.steps)
    return Job(name, cell, filled, machines.parse(filled.accelerator), folder, commands)


def _filled(value: Any, known: Mapping[str, Value]) -> Any:
    """`value` with the placeholders of all its texts filled in."""
    if isinstance(value, str):
        return _fill(value, known)
    if isinstance(value, Step):
        return dataclasses.replace(value, **{f.name: _filled(getattr(value, f.name), known) for f in dataclasses.fields(value)})
    if isinstance(value, Spec):
        names = ("accelerator", "steps", "env", "image", "zone", "queue")
        return dataclasses.replace(value, **{name: _filled(getattr(value, name), known) for name in names})
    if isinstance(value, Mapping):
        return {key: _filled(item, known) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_filled(item, known) for item in value)
    return value


def _fill(text: str, known: Mapping[str, Value]) -> str:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    except ValueError as e:
        raise errors.UserError(f"{text!r}: {e}; a brace itself is written twice") from e
    for field in fields:
        if field not in known:
            raise errors.UserError(f"{text!r}: {{{field}}} is not known{errors.nearest(field, known)}; a brace itself is written twice")
    return text.format_map(known)


def _command(step: Step, folder: str) -> tuple[str, ...]:
    arguments = [step.run]
    if step.config:
        arguments.append(f"--config={step.config}")
    if step.run in WITH_WORKDIR:
        arguments.append(f"--workdir={folder}/{step.workdir or step.run}")
    for key, value in step.overrides.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        arguments.append(f"--config.{key}={shown}")
    return (*arguments, *step.arguments)
