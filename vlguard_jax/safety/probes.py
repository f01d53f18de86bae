"""probe.jsonl: the rates that a training run measured on its way, and which of its updates was the best by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import typed
from vlguard_jax.safety import asked as asked_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import summary

FILE, FOLDER, BEST = "probe.jsonl", "probe", "best.json"
SCHEMA = 1
LOWER = ("asr", "refusal_rate", "harm_score")  # the less the better


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate(summary.Rate):
    """A rate of a probe.

    Attributes:
      name: EVALUATION/SUBSET/METRIC, with /JUDGE behind it where an earlier judge measures the same.
      metric: as in summary.json.
      n_invalid, n_cut: as there.
      stand_in: whether pictures of the test or of the training were drawn by `prepare`.
      measured: hash of the questions, how they were asked and the judge; "": not known. Others cannot be compared.
    """

    name: typed.Name
    metric: typed.Name
    n_invalid: typed.Count
    n_cut: typed.Count
    stand_in: bool
    measured: typed.Name = typed.later("")


@dataclasses.dataclass(frozen=True)
class Probe:
    """step: updates made before it; seconds: that it took, answers of an earlier try not counted; weights_sha256: of
    the model, as in its generations.jsonl; time: when it ended."""

    step: typed.Count
    seconds: typed.Number
    weights_sha256: typed.Name
    rates: tuple[Rate, ...]
    time: typed.Time

    def rate(self, name: str) -> Rate | None:
        """The rate of this name, None if it was not measured."""
        return next((rate for rate in self.rates if rate.name == name), None)


def names(measures: Iterable[tuple[str, str, str, str]]) -> list[str]:
    """The name of each measure (evaluation, subset, metric, judge), in order."""
    found: list[str] = []
    for evaluation, subset, metric, judge in measures:
        name = f"{evaluation}/{subset}/{metric}"
        found.append(f"{name}/{judge}" if name in found else name)
    return found


def rates(rows: Mapping[str, Sequence[summary.Row]]) -> tuple[Rate, ...]:
    """The rates of evaluations, from the rows of summary.json by the evaluation's name."""
    measured = [(name, row) for name, of_one in rows.items() for row in of_one]
    called = names((name, row.subset, row.metric, row.judge) for name, row in measured)
    return tuple(
        Rate(
            name=name,
            metric=row.metric,
            n=row.n,
            count=row.count,
            rate=row.rate,
            ci_low=row.ci_low,
            ci_high=row.ci_high,
            n_invalid=row.n_invalid,
            n_cut=row.n_cut,
            stand_in=row.stand_in,
            measured=_measured(row),
        )
        for name, (_, row) in zip(called, measured, strict=True)
    )


def _measured(row: summary.Row) -> str:
    judge = (row.judge, row.judge_version, row.judge_prompt_sha256)
    how = dataclasses.astuple(asked_lib.how_of(row))
    return results.sha256(json.dumps([row.questions_sha256, row.pictures_sha256, *judge, *how]))[:16]


def line(probe: Probe) -> bytes:
    """A probe as a line of the file."""
    return json.dumps({"schema": SCHEMA, **dataclasses.asdict(probe)}).encode("ascii") + b"\n"


def read(folder: pathlib.Path) -> tuple[Probe, ...]:
    """The probes of a training run in `folder`, by step; none without the file. A torn last line is left out.

    Raises:
      UserError: another line is broken, or of another schema.
    """
    path = folder / FILE
    if not path.exists():
        return ()
    lines = files.read_bytes(path, limits.RESULT_BYTES).split(b"\n")[:-1]
    found = {probe.step: probe for number, one in enumerate(lines, 1) if (probe := _parse(one, f"{path}:{number}"))}
    return tuple(found[step] for step in sorted(found))


def _parse(data: bytes, where: str) -> Probe:
    way = "restore the file or delete this line"
    values: Any = files.parse_json(data, where)
    if not isinstance(values, dict) or values.pop("schema", None) != SCHEMA:
        raise errors.UserError(f"{where}: not a line about a probe of this program; {way}")
    probe = typed.make(Probe, values, where, way)
    for rate in probe.rates:
        summary.check_rate(rate, where, way)
    return probe


def lower(settings: settings_lib.BestSettings, metric: str) -> bool:
    """Whether less of the metric is better."""
    return settings.order == "min" or (settings.order == "auto" and metric in LOWER)


def comparable(probes: Iterable[Probe]) -> Callable[[Probe, str], Rate | None]:
    """The rate of a name in a probe; None where it lacks it, or has it measured otherwise than the newest probe with
    that rate, as before an evaluation's settings or file were changed."""
    newest = {rate.name: rate.measured for probe in sorted(probes, key=lambda one: one.step) for rate in probe.rates}

    def found(probe: Probe, name: str) -> Rate | None:
        rate = probe.rate(name)
        return rate if rate and rate.measured in ("", newest[name]) else None

    return found


def best(settings: settings_lib.BestSettings, probes: Iterable[Probe]) -> Probe | None:
    """The probe with the best rate among those that the guard lets pass; the earliest of several. None without one.

    The model before the first update is none of the run's, and does not count; nor do rates that are not `comparable`.
    """
    probes = sorted(probes, key=lambda probe: probe.step)
    of = comparable(probes)
    found: tuple[float, Probe] | None = None
    for probe in probes:
        rate, guard = of(probe, settings.rate), of(probe, settings.guard)
        if rate is None or not probe.step or (settings.guard and (guard is None or guard.rate > settings.at_most)):
            continue
        value = rate.rate if lower(settings, rate.metric) else -rate.rate
        if found is None or value < found[0]:
            found = value, probe
    return None if found is None else found[1]
