"""The judges of a report against people's labels, and the report's rates corrected for the judges' error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path

from vlguard_jax import errors
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.safety import calibration
from vlguard_jax.safety import labels as labels_lib
from vlguard_jax.safety import results
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import registry

CORRECTABLE = ("asr", "refusal_rate")
EDGE = "*"  # the estimate lay outside 0 to 100 percent
WAYS = {"answer": "answers", "refusal": "refusals"}  # how partial refusals count, in words

JUDGES = (
    "Judges against people, with 95 % intervals (Wilson; kappa: Cohen's). Refusals and answers are full ones as people"
    " label them; partial refusals stand apart."
)
RATES = (
    "Percent of the answers that the judge could label, with 95 % intervals: as the judge counts, and as people would"
    " (Rogan and Gladen's correction; Lang and Reiczigel's interval, which carries the evaluated and the labelled"
    f" answers). {EDGE}: the correction ends outside 0 to 100, by chance where a rate is close to one of these, or"
    " because these labels do not fit the model."
)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Tables about the judges and the corrected rates, each with its caption, and what a reader must know."""

    tables: tuple[tuple[str, provenance.Table], ...]
    notes: tuple[str, ...]


def read(paths: Sequence[Path], evaluations: Sequence[runs.Evaluation]) -> list[labels_lib.Labels]:
    """The labelled answers of all files, by model.

    Raises:
      UserError: as `labels.read`; two sets of one model; or labels with a key that is of no answer of `evaluations`, or
        of another one.
    """
    found: dict[str, labels_lib.Labels] = {}
    answers = {line.key: line for e in evaluations for line in e.answers}
    models = _models(evaluations)
    for one in [labels for path in paths for labels in labels_lib.read(path)]:
        if other := found.get(one.model):
            raise errors.UserError(
                f"--calibration: {other.path} and {one.path} both have answers of {errors.short(one.model)}; name each"
                " model's answers once"
            )
        _check_keys(one, answers, models)
        found[one.model] = one
    return list(found.values())


def _models(evaluations: Sequence[runs.Evaluation]) -> dict[str, set[str]]:
    """Key of an answer -> the models that gave it, as tables call them."""
    found: dict[str, set[str]] = {}
    for evaluation in evaluations:
        for line in evaluation.answers:
            found.setdefault(line.key, set()).add(evaluation.model)
    return found


def _check_keys(
    labels: labels_lib.Labels, answers: Mapping[str, results.GenerationLine], models: Mapping[str, set[str]]
) -> None:
    first: dict[str, str] = {}
    for labelled in labels.answers:
        if not labelled.key:
            continue
        if labelled.key in first:
            raise errors.UserError(
                f"{labelled.origin}: the answer of key {errors.short(labelled.key)} has a label in"
                f" {first[labelled.key].rpartition(': ')[2]}, too; leave one of them, or it counts twice"
            )
        first[labelled.key] = labelled.origin
        line = answers.get(labelled.key)
        if line is None:
            raise errors.UserError(
                f"{labelled.origin}: no answer of these runs has the key {errors.short(labelled.key)}; name the runs"
                " whose answers were labelled, or leave the column out"
            )
        ours = results.sha256(labelled.response) if line.withheld else labelled.response
        if ours != line.response:
            raise errors.UserError(
                f"{labelled.origin}: the answer is not the one of key {errors.short(labelled.key)} in"
                f" {results.GENERATIONS}: the label is of another answer; label these again"
            )
        if labelled.model and labelled.model not in models[labelled.key]:
            raise errors.UserError(
                f"{labelled.origin}: model={errors.short(labelled.model)}, and the answer of this key is of"
                f" {' and '.join(map(errors.short, sorted(models[labelled.key])))}; name that, or leave the column out"
            )


def calibrate(grid: grid_lib.Grid, labels: Sequence[labels_lib.Labels]) -> Calibration:
    """The judges of the grid's refusal and attack success rates on `labels`, and these rates corrected.

    Raises:
      UserError: there is no such rate; a judge is unknown here or of another version; or a judge's verdicts on the
        labels say nothing (see `calibration.refusals`).
    """
    rated = [
        (line.label, _measure(column), cell)
        for line in grid.lines
        for column, cell in zip(grid.columns, line.cells, strict=True)
        if cell and cell.rated and cell.rated.row.metric in CORRECTABLE
    ]
    if not rated:
        raise errors.UserError("--calibration: no run has a rate of refusals or answered requests; leave it out")
    judges = {cell.rated.row.judge: _judge(cell) for _, _, cell in rated if cell.rated}
    agreements = {
        (name, one.model): calibration.agreement(judge, [(a.response, a.label) for a in one.answers])
        for name, judge in judges.items()
        for one in labels
    }
    rates = [line for label, measure, cell in rated for line in _rates(label, measure, cell, labels, agreements)]
    headings = ("model", "measure", "judge", "partial refusals are", "as judged")
    corrected = provenance.Table((*headings, *(f"corrected by labels on {one.model}" for one in labels)), tuple(rates))
    return Calibration(((JUDGES, _against_people(labels, agreements)), (RATES, corrected)), _notes(grid, labels))


def _measure(column: grid_lib.Column) -> str:
    shown = f", shown {column.pictures}" if column.control else ""
    subset = grid_lib.SUBSETS.get(column.subset, column.subset)
    return f"{grid_lib.SHORT[column.metric]}: {subset} ({column.benchmark}{shown})"


def _judge(cell: grid_lib.Cell) -> judge_lib.Judge:
    assert cell.rated is not None
    row, where = cell.rated.row, cell.rated.evaluation.folder
    if row.judge not in registry.JUDGES:
        raise errors.UserError(
            f"--calibration: {where} was judged by {errors.short(row.judge)}, which cannot be run here"
            f"{errors.nearest(row.judge, registry.JUDGES)}"
        )
    (judge,) = registry.get([row.judge])
    if results.rule(judge) != (row.judge, row.judge_version, row.judge_prompt_sha256):
        raise errors.UserError(
            f"--calibration: {where} was judged by version {errors.short(row.judge_version)} of {row.judge}, and this"
            f" program has {judge.version}; run evaluate there again"
        )
    return judge


def _rates(
    label: str,
    measure: str,
    cell: grid_lib.Cell,
    labels: Sequence[labels_lib.Labels],
    agreements: Mapping[tuple[str, str], calibration.Agreement],
) -> list[tuple[str, ...]]:
    """A line, or two where partial refusals can count as refusals or as answers."""
    assert cell.rated is not None
    row = cell.rated.row
    n = row.n - row.n_invalid
    if not n:
        return []
    lines = []
    found = [agreements[row.judge, one.model] for one in labels]
    ways = list(WAYS) if any("partial" in agreement.called for agreement in found) else ["apart"]
    count = row.count - row.n_invalid * (row.metric == "asr")
    for way in ways:
        cells = []
        for one, agreement in zip(labels, found, strict=True):
            try:
                estimate = calibration.corrected(row, agreement.confusion(way))
            except errors.UserError as e:
                raise errors.UserError(f"--calibration: {one.path}, answers of {one.model}, {row.judge}: {e}") from e
            cells.append(_percent(estimate) + EDGE * estimate.beyond)
        weight = calibration.effective(row) / row.n
        raw = calibration.share(count * weight, n * weight)
        judged = " ".join((_percent(raw), *(f"({mark})" for mark in grid_lib.reservations(cell))))
        lines.append((label, measure, row.judge, WAYS.get(way, grid_lib.NONE), judged, *cells))
    return lines


def _against_people(
    labels: Sequence[labels_lib.Labels], agreements: Mapping[tuple[str, str], calibration.Agreement]
) -> provenance.Table:
    headings = (
        "judge",
        "answers of",
        "labelled refusals, answers",
        "refusals found (sensitivity)",
        "answers kept (specificity)",
        "kappa",
        "partial refusals called refusals",
        "without a verdict",
    )
    lines = []
    for (judge, model), agreement in agreements.items():
        c = agreement.confusion("apart")
        partial, called = agreement.called.get("partial", (0, 0))
        lines.append(
            (
                judge,
                model,
                f"{c.refusals}, {c.answers}",
                _percent(c.sensitivity),
                _percent(c.specificity),
                grid_lib.NONE if c.kappa is None else f"{c.kappa.value:.2f} [{c.kappa.low:.2f}, {c.kappa.high:.2f}]",
                f"{called} of {partial}" if partial else grid_lib.NONE,
                str(agreement.invalid),
            )
        )
    return provenance.Table(headings, tuple(lines))


def _percent(found: calibration.Estimate | None) -> str:
    if found is None:
        return grid_lib.NONE
    return f"{grid_lib.percent(found.value)} [{grid_lib.percent(found.low)}, {grid_lib.percent(found.high)}]"


def _notes(grid: grid_lib.Grid, labels: Sequence[labels_lib.Labels]) -> tuple[str, ...]:
    sources = "; ".join(f"{one.model}: {len(one.answers)} in {one.path.name} ({one.sha256[:12]})" for one in labels)
    found = [f"Labelled answers: {sources}."]
    if strangers := _strangers(grid, labels):
        told = " ".join(
            f"Labels of {', '.join(of)} are not known to be on answers of {', '.join(on)}."
            for on, of in strangers.items()
        )
        found.append(
            f"{told} A judge's error depends on how a model words its refusals: such a correction holds as far as the"
            " evaluated model refuses in the same words. Where the columns disagree, none of them is known to be right;"
            " label some of the model's own answers, with their keys."
        )
    found.append(
        "Partial refusals (people: refuses and still helps) count as answers, as a partial verdict does in all rates,"
        " and in a second line as refusals. Each is right for a model that has as large a share of them as the labels."
    )
    return tuple(found)


def _strangers(grid: grid_lib.Grid, labels: Sequence[labels_lib.Labels]) -> dict[tuple[str, ...], list[str]]:
    """Evaluated models -> those whose labels are not known, by their keys, to be on the answers of each of these."""
    evaluated = dict.fromkeys(line.model for line in grid.lines)
    rated = [cell.rated.evaluation for line in grid.lines for cell in line.cells if cell and cell.rated]
    models = _models(list({evaluation.folder: evaluation for evaluation in rated}.values()))
    found: dict[tuple[str, ...], list[str]] = {}
    for one in labels:
        own = set(evaluated).intersection(*(models.get(labelled.key, set()) for labelled in one.answers))
        if others := tuple(model for model in evaluated if model not in own):
            found.setdefault(others, []).append(one.model)
    return found
