"""Finds training and evaluation runs below folders and reads what a report needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import files as files_lib
from vlguard_jax import ranges
from vlguard_jax import typed
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.safety import asked as asked_lib
from vlguard_jax.safety import probes
from vlguard_jax.safety import results
from vlguard_jax.safety import summary

METRICS = "metrics.jsonl"  # as training/metrics.py writes it
INSIDE = (
    "checkpoints",
    "model",
    "best",
    "tensorboard",
    "wandb",
    probes.FOLDER,
)  # folders of a training run without runs, perhaps with many files

C = TypeVar("C", settings_lib.TrainConfig, settings_lib.EvalConfig)
L = TypeVar("L", results.GenerationLine, results.VerdictLine)


class MetricsLine(TypedDict):
    """What the report needs of a line of metrics.jsonl; a loss may be NaN or infinite where an update was skipped."""

    step: Annotated[int, ranges.Range(1, 1 << 40)]
    loss: typed.Number | typed.NotFinite
    step_seconds: NotRequired[Annotated[float, ranges.Range(0, 1e9)]]


class HeldOutLine(TypedDict):
    """As `MetricsLine`, of a line with the loss on what is held out, perhaps before the first update."""

    step: Annotated[int, ranges.Range(0, 1 << 40)]


HELD_OUT = "validation/loss"  # as training/validation.py names it


@dataclasses.dataclass(frozen=True)
class Training:
    """A training run: its config, the lines of metrics.jsonl in order, and its probes. `name` is unique in the
    report. held_out: the lines of metrics.jsonl with HELD_OUT."""

    name: str
    folder: Path
    config: settings_lib.TrainConfig
    metrics: tuple[dict[str, float], ...]
    probes: tuple[probes.Probe, ...] = ()
    held_out: tuple[dict[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation run.

    `answers` are those that the rows count, in file order: made with the rows' weights, the last one per item.
    """

    folder: Path
    config: settings_lib.EvalConfig
    rows: tuple[summary.Row, ...]
    answers: tuple[results.GenerationLine, ...]
    verdicts: tuple[results.VerdictLine, ...]

    @property
    def model(self) -> str:
        """The model's name in tables."""
        return self.rows[0].model


@dataclasses.dataclass(frozen=True)
class Runs:
    """What was found. `notices` are sentences about what was left out."""

    trainings: tuple[Training, ...]
    evaluations: tuple[Evaluation, ...]
    notices: tuple[str, ...]


def find(folders: Sequence[Path]) -> Runs:
    """Read all runs in `folders` and below them: in the order of `folders`, within one by the time of the first answer.

    Raises:
      UserError: a folder does not exist, holds no run, or a file of a run cannot be read.
    """
    trainings: dict[Path, Training] = {}
    evaluations: dict[Path, Evaluation] = {}
    notices: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise errors.UserError(
                f"{folder}: no such folder; name working directories of train or evaluate, or a folder above them"
            )
        found: list[Evaluation] = []
        for path, config in _configs(folder):
            if isinstance(config, settings_lib.TrainConfig):
                updates, held_out = _metrics(path / METRICS)
                found_there = Training("", path, config, updates, probes.read(path), held_out)
                trainings.setdefault(path.resolve(), found_there)
            elif not (path / summary.NAME).is_file():
                notices.append(f"{path.name}: the evaluation is not finished and was left out")
            elif path.resolve() not in evaluations:
                evaluation, told = _evaluation(path, config)
                found.append(evaluation)
                notices += told
        for evaluation in sorted(found, key=lambda e: min((a.time for a in e.answers), default="")):
            evaluations.setdefault(evaluation.folder.resolve(), evaluation)
    if not trainings and not evaluations:
        raise errors.UserError(
            f"{', '.join(str(f) for f in folders)}: no finished run below; a report needs a working directory of train"
            f" (config.json, {METRICS}) or of evaluate (config.json, {summary.NAME})"
        )
    names = unique_names(list(trainings))
    return Runs(
        tuple(dataclasses.replace(one, name=names[path], folder=path) for path, one in trainings.items()),
        tuple(evaluations.values()),
        tuple(notices),
    )


def draw(trainings: Iterable[Training]) -> str:
    """Which part of its sources a model was trained on: the seeds of their samples."""
    sources = [one.config.data.sources for one in trainings]
    return str([(name, s.sample_seed) for found in sources for name, s in sorted(found.items())])


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The shortest endings of the paths that tell them apart."""
    for length in range(1, max((len(p.parts) for p in paths), default=0) + 1):
        names = {path: "/".join(path.parts[-length:]) for path in paths}
        if len(set(names.values())) == len(names):
            return names
    return {}


def _configs(top: Path) -> Iterator[tuple[Path, settings_lib.TrainConfig | settings_lib.EvalConfig]]:
    """(folder, its config) of every run below `top`; folders with another config.json, such as a model's, are
    skipped."""
    for folder, below, files in os.walk(top):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if workdir_lib.CONFIG_FILE not in files:
            continue
        path = Path(folder) / workdir_lib.CONFIG_FILE
        try:
            values = files_lib.read_json(path)
        except errors.UserError as e:
            raise errors.UserError(f"{e}; restore the file or leave its folder out") from e
        if not isinstance(values, dict):
            continue
        if {"benchmark", "decode", "judges"} <= values.keys():
            yield path.parent, _resolve(path, values, settings_lib.EvalConfig)
        elif {"data", "optimizer", "lora"} <= values.keys() and METRICS in files:
            below[:] = [name for name in below if name not in INSIDE]
            yield path.parent, _resolve(path, values, settings_lib.TrainConfig)


def _resolve(path: Path, values: dict[str, Any], kind: type[C]) -> C:
    try:
        return settings_lib.resolve(values, kind)
    except errors.UserError as e:
        raise errors.UserError(f"{path}: {e} (written by another version of this program?)") from e


def _metrics(path: Path) -> tuple[tuple[dict[str, float], ...], tuple[dict[str, float], ...]]:
    """(the lines of updates, those with HELD_OUT)."""
    lines = files_lib.read_bytes(path).split(b"\n")[:-1]  # what follows the last line end was cut short
    updates: list[dict[str, float]] = []
    held_out: list[dict[str, float]] = []
    for number, line in enumerate(lines, 1):
        where, way = f"{path}:{number}", "not a metrics line of train: restore the file or leave its folder out"
        try:
            values = files_lib.parse_json(line, where)
        except errors.UserError as e:
            raise errors.UserError(f"{e}; {way}") from e
        typed.check(Mapping[str, typed.Number | typed.NotFinite], values, where, way)
        of_held_out = HELD_OUT in values
        typed.check(HeldOutLine if of_held_out else MetricsLine, values, where, way)
        (held_out if of_held_out else updates).append({name: float(value) for name, value in values.items()})
    return tuple(updates), tuple(held_out)


def _evaluation(folder: Path, config: settings_lib.EvalConfig) -> tuple[Evaluation, list[str]]:
    """The evaluation, and sentences about what was left out."""
    rows = summary.read(folder / summary.NAME, summary.Row)
    lines = _lines(folder / results.GENERATIONS, results.GenerationLine)
    answers: list[results.GenerationLine] = []
    notices = []
    for subset, row in {row.subset: row for row in rows}.items():
        last = {a.item_id: a for a in lines if a.subset == subset and a.weights_sha256 == row.weights_sha256}
        digests = asked_lib.digests({id_: asked_lib.of_line(line) for id_, line in last.items()})
        if all(getattr(row, name) == digest for name, digest in digests.items()):
            answers += last.values()
        else:
            notices.append(
                f"{folder.name}: answers to {subset} are not shown, {results.GENERATIONS} holds others than"
                f" {summary.NAME}"
            )
    verdicts = _lines(folder / results.VERDICTS, results.VerdictLine)
    keys = {line.key for line in lines}
    if keys and (strange := [v.key for v in verdicts if v.key not in keys]):
        raise errors.UserError(
            f"{folder / results.VERDICTS}: {len(strange)} of {len(verdicts)} verdicts are on answers that"
            f" {results.GENERATIONS} does not hold, {errors.short(strange[0])} first; put the two files of one run"
            " together, or leave the folder out"
        )
    return Evaluation(folder, config, tuple(rows), tuple(answers), verdicts), notices


def _lines(path: Path, kind: type[L]) -> tuple[L, ...]:
    return tuple(results.Lines(path, kind, repair=False).lines)
