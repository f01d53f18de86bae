"""The judges of a report against people's labels, and the report's rates corrected for the judges' error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlguard_jax import errors
from vlguard_jax.reporting import alike
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import labelled
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.safety import calibration
from vlguard_jax.safety import labels as labels_lib
from vlguard_jax.safety import results
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import registry

CORRECTABLE = ("asr", "refusal_rate")
Agreements = dict[tuple[tuple[str, str, str], str], calibration.Agreement | None]  # (rule of a judge, labelled model)
FIXED = 5  # columns of corrected rates before the corrected ones
EDGE = "*"  # the estimate lay outside 0 to 100 percent
WAYS = {"answer": "answers", "refusal": "refusals"}  # how partial refusals count, in words

JUDGES = (
    "Judges against people, with 95 % intervals (Wilson; kappa: Cohen's). Refusals and answers are full ones as people"
    " label them; partial refusals stand apart. Kappa is not defined for a judge that says the same of all."
)
RATES = (
    "Percent of the answers that the judge could label, with 95 % intervals: as the judge counts, and as people would"
    " (Rogan and Gladen's correction; Lang and Reiczigel's interval, which carries the evaluated and the labelled"
    f" answers). {EDGE}: the correction ends outside 0 to 100, by chance where a rate is close to one of these, or"
    " because these labels do not fit the model."
)


def calibrate(grid: grid_lib.Grid, labels: Sequence[labels_lib.Labels]) -> provenance.Section:
    """The judges of the grid's refusal and attack success rates on `labels`, and these rates corrected.

    A judge that cannot read answers here is measured by its stored verdicts on labelled answers with keys. What cannot
    be measured or corrected is left empty, with a note, as long as something can.

    Raises:
      UserError: there is no such rate; or none can be corrected: the judges are unknown here or of another version, or
        their verdicts on the labels say nothing (see `calibration.refusals`).
    """
    rated = [
        (line.label, _measure(column), cell, cell.rated)
        for line in grid.lines
        for column, cell in zip(grid.columns, line.cells, strict=True)
        if cell
        and cell.rated
        and cell.rated.row.metric in CORRECTABLE
        # of harmless questions: labels of harm say nothing about refusals
        and not (cell.rated.row.metric == "refusal_rate" and labels[0].asks == labels_lib.HARM)
    ]
    if not rated:
        raise errors.UserError(
            "--calibration: no run has a rate of refusals or answered requests that such labels correct; leave it out"
        )
    troubles: dict[str, None] = {}  # in the order in which they are met
    verdicts = _Verdicts([one.evaluation for *_, one in rated])
    agreements: Agreements = {}
    for one in {one.row.rule: one for *_, one in rated}.values():
        agreements |= {(one.row.rule, of.model): verdicts.on(one, of, troubles) for of in labels}
    figures: list[dict[str, Any]] = []
    rates = [
        line
        for label, measure, cell, _ in rated
        for line in _rates(label, measure, cell, labels, agreements, troubles, figures)
    ]
    if troubles and not any(cell != grid_lib.NONE for line in rates for cell in line[FIXED:]):
        raise errors.UserError(f"--calibration: {next(iter(troubles))}")
    headings = ("model", "measure", "judge", "partial refusals are", "as judged")
    corrected = provenance.Table((*headings, *(f"corrected by labels on {of.model}" for of in labels)), tuple(rates))
    tables = ((JUDGES, _against_people(agreements)), (RATES, corrected))
    notes = (*_notes(grid, labels), *(f"Not measured: {trouble}." for trouble in troubles))
    return provenance.Section(tables, notes, tuple(figures))


class _Verdicts:
    """What judges say of labelled answers: as the runs have it, else by reading the answer again."""

    def __init__(self, evaluations: Sequence[runs.Evaluation]):
        self._stored = {(v.key, v.rule): v.label for e in evaluations for v in e.verdicts}
        self._texts = {line.key: line.response for e in evaluations for line in e.answers if not line.withheld}

    def on(
        self, one: alike.Rated, labels: labels_lib.Labels, troubles: dict[str, None]
    ) -> calibration.Agreement | None:
        """The judge of a rate beside the labels; None where it has no verdict on any of the answers. `troubles` gets
        why it has none, or on how many."""
        rule = one.row.rule
        if registry.measures(one.row.judge, one.evaluation.config) == labels_lib.HARM != labels.asks:
            troubles[
                f"{one.row.judge} measures harm, and {labels.path} says of answers of {labels.model} whether they"
                " refuse, which is another question; label with --ask harm, or give labels of harm a column asks"
            ] = None
            return None
        judge, why = _readable(one)
        pairs: list[tuple[str, str]] = []
        unread: list[tuple[str, str]] = []
        for answer in labels.answers:
            text = self._texts.get(answer.key) if answer.response is None else answer.response
            if stored := self._stored.get((answer.key, rule)):
                pairs.append((answer.label, stored))
            elif judge and text is not None:
                unread.append((answer.label, text))
        if judge and unread:
            verdicts = judge.judge([judge_lib.Exchange("", text) for _, text in unread])
            pairs += [(label, verdict.label) for (label, _), verdict in zip(unread, verdicts, strict=True)]
        if not pairs:
            troubles[why or f"{one.row.judge} has no verdict on labelled answers of {labels.model}"] = None
        elif absent := len(labels.answers) - len(pairs):
            troubles[
                f"{absent} of {len(labels.answers)} labelled answers of {labels.model}, on which {one.row.judge} has"
                " no verdict"
            ] = None
        return calibration.tally(pairs) if pairs else None


def _readable(one: alike.Rated) -> tuple[judge_lib.Judge | None, str]:
    """(the judge of a rate, if it reads nothing but an answer and is here in that version; else None, and why)."""
    row, where = one.row, one.evaluation.folder
    if row.judge_prompt_sha256:
        return None, (
            f"{row.judge} judges with a prompt, so only labels of answers that it has judged measure it; label some of"
            " these runs' answers (python -m vlguard_jax.label)"
        )
    if row.judge not in registry.JUDGES:
        nearest = errors.nearest(row.judge, registry.JUDGES)
        return None, f"{where} was judged by {errors.short(row.judge)}, which cannot be run here{nearest}"
    (judge,) = registry.get([row.judge])
    if isinstance(judge, judge_lib.SlowJudge) or results.rule(judge) != row.rule:
        return None, (
            f"{where} was judged by version {errors.short(row.judge_version)} of {row.judge}, and this program has"
            f" {judge.version}; run evaluate there again"
        )
    return judge, ""


def _measure(column: grid_lib.Column) -> str:
    shown = f", shown {column.pictures}" if column.control else ""
    subset = grid_lib.SUBSETS.get(column.subset, column.subset)
    return f"{grid_lib.SHORT[column.metric]}: {subset} ({column.benchmark}{shown})"


def _rates(
    label: str,
    measure: str,
    cell: grid_lib.Cell,
    labels: Sequence[labels_lib.Labels],
    agreements: Agreements,
    troubles: dict[str, None],
    figures: list[dict[str, Any]],
) -> list[tuple[str, ...]]:
    """A line, or two where partial refusals count as refusals or as answers; `troubles` gets why a cell is empty, and
    `figures` the others as numbers."""
    assert cell.rated is not None
    row = cell.rated.row
    n = row.n - row.n_invalid
    if not n:
        return []
    lines = []
    found = [agreements[row.rule, one.model] for one in labels]
    ways = list(WAYS) if any(agreement and "partial" in agreement.called for agreement in found) else ["apart"]
    count = row.count - row.n_invalid * (row.metric == "asr")
    weight = calibration.effective(row) / row.n
    raw = calibration.share(count * weight, n * weight)
    assert raw
    told = {"model": label, "benchmark": row.benchmark, "subset": row.subset, "metric": row.metric, "judge": row.judge}
    for way in ways:
        cells = []
        for one, agreement in zip(labels, found, strict=True):
            try:
                estimate = calibration.corrected(row, agreement.confusion(way)) if agreement else None
            except errors.UserError as e:
                troubles[f"{one.path}, answers of {one.model}, {row.judge}: {e}"] = None
                estimate = None
            cells.append(_percent(estimate) + EDGE * bool(estimate and estimate.beyond))
            if estimate:
                of = {"n": n, "judged": raw.value, "partial_refusals": way, "labels_on": one.model}
                ends = {"rate": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
                figures.append(told | of | ends | {"beyond": estimate.beyond})
        judged = " ".join((_percent(raw), *(f"({mark})" for mark in grid_lib.reservations(cell))))
        lines.append((label, measure, row.judge, WAYS.get(way, grid_lib.NONE), judged, *cells))
    return lines


def _against_people(agreements: Agreements) -> provenance.Table:
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
    for ((judge, *_), model), agreement in agreements.items():
        if agreement is None:
            continue
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
    sources = "; ".join(f"{one.model}: {len(one.answers)}, {one.told or f'in {one.origin}'}" for one in labels)
    found = [f"Labelled answers: {sources}."]
    if labels[0].asks == labels_lib.HARM:
        found.append("People were asked whether answers are harmful: a refusal here is an answer that is not.")
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
    models = labelled.models_of(list({evaluation.folder: evaluation for evaluation in rated}.values()))
    found: dict[tuple[str, ...], list[str]] = {}
    for one in labels:
        own = set(evaluated).intersection(*(models.get(answer.key, set()) for answer in one.answers))
        if others := tuple(model for model in evaluated if model not in own):
            found.setdefault(others, []).append(one.model)
    return found
