"""What was run: settings, seeds, versions, weights and times, from the files that the runs left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import datetime
import json
from pathlib import Path
from pathlib import PurePath
import shlex
import sys
from typing import Any

from vlguard_jax import config as settings_lib
from vlguard_jax import escape
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import runs
from vlguard_jax.reporting import tables
from vlguard_jax.safety import paper as paper_lib
from vlguard_jax.safety import summary

COMPARISONS = (
    "Percent and differences with 95 % intervals. Holm: p adjusted for the number of tests of its kind in this table,"
    " where that makes it another."
)
CATEGORIES = "Percent by category of the question, with 95 % intervals."


@dataclasses.dataclass(frozen=True)
class Table:
    """Headings and lines, as text."""

    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Section:
    """Tables with their captions, what a reader must know of them, and what of them a program may want as numbers."""

    tables: tuple[tuple[str, Table], ...]
    notes: tuple[str, ...]
    figures: tuple[Mapping[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run's config: what differs from the defaults, and all of it as JSON."""

    name: str
    changed: tuple[tuple[str, str], ...]
    whole: str


def seconds(value: float) -> str:
    """A duration in words, at most two units."""
    if value < 120:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h"


def trainings(found: Sequence[runs.Training]) -> Table:
    """One line per training run.

    Its time is the mean of the logged step times, times the updates, without compilation.
    """
    held_out = any(t.held_out for t in found)
    headings = (
        "run",
        "starts from",
        "trained on",
        "method",
        "updates",
        "batch",
        "learning rate",
        "seed",
        "last loss",
        *(["loss on held-out conversations"] if held_out else []),
        "time of its steps",
    )
    return Table(headings, tuple(_training(t, held_out) for t in found))


def _held_out(training: runs.Training) -> str:
    """From the first to the last one, and the least with its update."""
    losses = [(line[runs.HELD_OUT], f"{line['step']:,.0f}") for line in training.held_out]
    if not losses:
        return grid_lib.NONE
    (first, _), (last, _), (least, update) = losses[0], losses[-1], min(losses, key=lambda one: one[0])
    return f"{first:.4f} to {last:.4f}; least {least:.4f} after update {update}"


def _training(training: runs.Training, held_out: bool) -> tuple[str, ...]:
    c, last = training.config, training.metrics[-1] if training.metrics else {}
    steps = [m["step_seconds"] for m in training.metrics if "step_seconds" in m]
    took = sum(steps) / len(steps) * last["step"] if steps else 0.0
    return (
        training.name,
        _short(c.model.path),
        ", ".join(c.data.sources),
        f"LoRA (rank {c.lora.rank})" if c.lora.rank else "full fine-tuning",
        f"{last.get('step', 0):,.0f}",
        str(c.data.batch_size),
        f"{c.optimizer.learning_rate:g}",
        str(c.seed),
        f"{last['loss']:.4f}" if last else grid_lib.NONE,
        *([_held_out(training)] if held_out else []),
        f"about {seconds(took)}" if steps else grid_lib.NONE,
    )


def _short(path: str) -> str:
    """The last two parts of a path, enough to recognise a model."""
    return "/".join(PurePath(path).parts[-2:])


def evaluations(found: Sequence[runs.Evaluation]) -> Table:
    """One line per evaluation run."""
    headings = (
        "model",
        "weights (sha256)",
        "asked",
        "answers",
        "template",
        "pictures",
        "decoding",
        "seed",
        "judges",
        "from first to last answer",
    )
    return Table(headings, tuple(_evaluation(e) for e in found))


def _evaluation(evaluation: runs.Evaluation) -> tuple[str, ...]:
    c, row = evaluation.config, evaluation.rows[0]
    kinds = sorted({r.pictures for r in evaluation.rows} - {summary.TEXT_ONLY})
    return (
        evaluation.model,
        row.weights_sha256[:16],
        f"{row.benchmark}: {', '.join(dict.fromkeys(r.subset for r in evaluation.rows))}",
        f"{len(evaluation.answers):,}",
        c.model.template,
        ", ".join([*kinds, c.model.image_mode]) if kinds else "none",
        f"{row.decode.told}, at most {row.decode.max_new} tokens, {row.decode.dtype}",
        str(row.seed),
        ", ".join(dict.fromkeys(r.judge for r in evaluation.rows)),
        _span([a.time for a in evaluation.answers]),
    )


def _span(times: Sequence[str]) -> str:
    if not times:
        return grid_lib.NONE
    first, last = (datetime.datetime.fromisoformat(t) for t in (min(times), max(times)))
    return seconds((last - first).total_seconds())


def versions(found: Sequence[runs.Evaluation]) -> list[str]:
    """Every library, with the versions that produced the answers."""
    names: dict[str, set[str]] = {}
    for evaluation in found:
        for line in evaluation.answers:
            for name, version in line.versions.items():
                names.setdefault(name, set()).add(version)
    return [f"{name} {', '.join(sorted(names[name]))}" for name in sorted(names)]


def settings(found: runs.Runs) -> list[Settings]:
    """The config of every run."""
    named: list[tuple[str, Any, Any]] = [
        (f"training {t.name}", t.config, settings_lib.TrainConfig()) for t in found.trainings
    ]
    folders = runs.unique_names([e.folder for e in found.evaluations])
    named += [
        (f"evaluation {e.model} ({folders[e.folder]})", e.config, settings_lib.EvalConfig()) for e in found.evaluations
    ]
    return [_settings(name, config, default) for name, config, default in named]


def _settings(name: str, config: Any, default: Any) -> Settings:
    ours, theirs = workdir_lib.plain(config), dict(_leaves(workdir_lib.plain(default)))
    changed = tuple(
        (key, json.dumps(value)) for key, value in _leaves(ours) if key not in theirs or theirs[key] != value
    )
    return Settings(name, changed, json.dumps(ours, indent=1, sort_keys=True))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif not isinstance(value, Mapping):
            yield f"{prefix}{key}", value


def comparisons(grid: grid_lib.Grid, evaluations: Sequence[runs.Evaluation]) -> Table:
    """Every row that carries a paired difference or a value of the paper, in words.

    Args:
      grid: of the rows.
      evaluations: all of the report; a baseline among them appears under its model's name.
    """
    models = {e.folder.resolve(): e.model for e in evaluations}
    found = [
        (line.label, f"{column.group.title}: {grid.heading(column)}", grid_lib.reservations(cell), cell.rated)
        for line in grid.lines
        for column, cell in zip(grid.columns, line.cells, strict=True)
        if cell and cell.rated
    ]
    versus, papers = tables.adjusted([rated.row for *_, rated in found])
    lines = []
    for (label, measure, reserved, rated), versus_p, paper_p in zip(found, versus, papers, strict=True):
        row = rated.row
        start = (label, measure, ", ".join((rate(row), f"n = {row.n}", *reserved)))
        if row.vs_baseline and versus_p is not None:
            against = _baseline_name(rated.evaluation.config.baseline, models)
            lines.append((*start, *_versus(row.vs_baseline, versus_p, against)))
        if row.paper:
            lines.append((*start, *_paper(row, row.paper, paper_p)))
    return Table(("model", "measure", "%", "compared with", "difference in points", "test"), tuple(lines))


def _versus(versus: summary.Difference, adjusted_p: float, against: str) -> tuple[str, str, str]:
    """(compared with, difference, test)."""
    against += f" (template {versus.template})" if versus.template else ""
    return against, tables.points(versus.diff, versus.ci, 1), f"{tables.tested(versus.p, adjusted_p)} ({versus.test})"


def _paper(row: summary.Row, paper: paper_lib.Comparison, adjusted_p: float | None) -> tuple[str, str, str]:
    """(compared with, difference, test)."""
    against = f"the paper: {paper.percent:.2f}, n = {paper.n}"
    if paper.p is None or adjusted_p is None:
        return against, grid_lib.NONE, paper.note
    diff, low, high = paper.difference(row.count, row.n)
    verdict = "reproduced" if paper_lib.reproduced(adjusted_p) else "not reproduced"
    test = f"{verdict}: {tables.tested(paper.p, adjusted_p)} (Boschloo, exact)"
    return against, tables.points(diff, (low, high), 1), test


def rate(found: summary.Rate) -> str:
    """A rate with its interval, in percent."""
    return f"{grid_lib.percent(found.rate)} ({grid_lib.percent(found.ci_low)} to {grid_lib.percent(found.ci_high)})"


def _baseline_name(folder: str, models: Mapping[Path, str]) -> str:
    """Name of the model evaluated in `folder` if it is in `models`, else the folder's name."""
    return models.get(Path(folder).resolve(), _short(folder)) if folder else "baseline"


def categories(grid: grid_lib.Grid) -> Table:
    """Rates by category: a line per measure and category, a column per model."""
    lines = []
    for i, column in enumerate(grid.columns):
        parts = [_parts(line.cells[i]) for line in grid.lines]
        for key in sorted({k for found in parts for k in found}):
            values = [found.get(key, grid_lib.NONE) for found in parts]
            lines.append(
                (f"{column.group.title}: {grid.heading(column)}", " / ".join(part for part in key if part), *values)
            )
    return Table(("measure", "category", *(line.label for line in grid.lines)), tuple(lines))


def _parts(cell: grid_lib.Cell | None) -> dict[tuple[str, str], str]:
    """(category, subcategory or "") -> its rate in words, of one row."""
    if cell is None or cell.rated is None:
        return {}
    return {
        (part.category, part.subcategory or ""): ", ".join((rate(part), f"n = {part.n}", *grid_lib.reservations(cell)))
        for part in cell.rated.row.by_category
    }


def command() -> str:
    """The command line of this process as a user would type it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = f"python -m {spec.name.removesuffix('.__main__')}" if spec else PurePath(sys.argv[0]).name
    return escape.line(" ".join([name, *map(shlex.quote, sys.argv[1:])]))
