"""Agreement of everyone who labelled the answers of a report: its judges, and people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import itertools

from vlguard_jax import errors
from vlguard_jax.reporting import labelled
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.safety import agreement

JUDGE, PERSON = "judge", "person"
MEASURES = ("asr", "refusal_rate")  # of judges that label refusals or harm
EVERYONE, JUDGES, PEOPLE = "everyone", "all judges", "all people"
ALL = "all"  # subsets together


@dataclasses.dataclass(frozen=True)
class Rater:
    """Who labels.

    Attributes:
      name: unique; a person's as the file has it.
      kind: JUDGE or PERSON.
      detail: a judge's version, or a person's file.
      labels: key of an answer -> one of `agreement.LABELS`.
      invalid: answers on which a judge gave no verdict; they are missing.
    """

    name: str
    kind: str
    detail: str
    labels: Mapping[str, str]
    invalid: int = 0

    @property
    def title(self) -> str:
        """For tables and columns, where a person may be called as a judge is."""
        return f"{self.name} ({PERSON})" if self.kind == PERSON else self.name


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer that somebody labelled. `text` is None where it was withheld."""

    key: str
    model: str
    benchmark: str
    subset: str
    item_id: str
    text: str | None


@dataclasses.dataclass(frozen=True)
class Agreed:
    """What raters have in common.

    Attributes:
      raters: judges, then people.
      answers: by key, those that two raters or more labelled.
      pairs: every two raters that labelled an answer both.
      alphas: (which raters, subset or ALL, their alpha), where two labelled an answer both.
      disagreements: keys of answers on which not all labels are the same, in the order of `answers`.
      majority: key -> what most people say, None where they are even; of answers that two people labelled.
      asks: what people were asked, see `labels.ASKS`; "" without people.
    """

    raters: tuple[Rater, ...]
    answers: Mapping[str, Answer]
    pairs: tuple[agreement.Pair, ...]
    alphas: tuple[tuple[str, str, agreement.Alpha], ...]
    disagreements: tuple[str, ...]
    majority: Mapping[str, str | None]
    asks: str

    def labels(self, key: str) -> dict[str, str]:
        """Title of a rater -> its label of an answer."""
        return {rater.title: rater.labels[key] for rater in self.raters if key in rater.labels}


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An answer on which raters differ, for the page; `text` is None where it was withheld."""

    name: str
    labels: str
    text: str | None


@dataclasses.dataclass(frozen=True)
class Shown:
    """Agreement for the page. `confusions` are tables of two raters each."""

    section: provenance.Section
    confusions: tuple[tuple[str, provenance.Table], ...]
    disagreements: tuple[Disagreement, ...]
    total: int


def measure(evaluations: Sequence[runs.Evaluation], people: Sequence[labelled.Person], asks: str = "") -> Agreed:
    """Compare all judges of refusals or harm with each other and with people.

    Raises:
      UserError: there is one rater alone, or no answer has labels of two.
    """
    raters = (*_judges(evaluations), *(Rater(p.name, PERSON, p.origin, p.labels) for p in people))
    if len(raters) < 2:
        alone = f"{raters[0].name} alone labels" if raters else "nobody labels"
        raise errors.UserError(
            f"--agreement: {alone} answers of these runs; name another judge with --judges or in config.judges of"
            " evaluate, or people's labels with --labels"
        )
    answers = {
        key: answer for key, answer in _answers(evaluations).items() if sum(key in rater.labels for rater in raters) > 1
    }
    if not answers:
        raise errors.UserError(
            f"--agreement: {' and '.join(r.name for r in raters)} label no answer in common; name the runs whose"
            " answers they labelled"
        )
    pairs = (agreement.pair(a.title, b.title, a.labels, b.labels) for a, b in itertools.combinations(raters, 2))
    return Agreed(
        raters,
        answers,
        tuple(pair for pair in pairs if pair.n),
        tuple(_alphas(raters, answers)),
        tuple(key for key in answers if len({r.labels[key] for r in raters if key in r.labels}) > 1),
        _majority(people, answers),
        asks,
    )


def _judges(evaluations: Sequence[runs.Evaluation]) -> list[Rater]:
    """Judges by their rule: those of one name and several versions are several."""
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for evaluation in evaluations:
        subsets: dict[tuple[str, str, str], set[str]] = {}
        for row in evaluation.rows:
            if row.metric in MEASURES:
                subsets.setdefault(row.rule, set()).add(row.subset)
        of = {line.key: line.subset for line in evaluation.answers}
        for verdict in evaluation.verdicts:
            if of.get(verdict.key) in subsets.get(verdict.rule, ()):
                found.setdefault(verdict.rule, {})[verdict.key] = verdict.label
    names = [name for name, *_ in found]
    raters = []
    for (name, version, prompt), labels in found.items():
        told = f"version {version}" + f", prompt {prompt[:12]}" * bool(prompt)
        valid = {key: label for key, label in labels.items() if label in agreement.LABELS}
        shown = name if names.count(name) == 1 else f"{name}, {told}"
        raters.append(Rater(shown, JUDGE, told, valid, len(labels) - len(valid)))
    return raters


def _answers(evaluations: Sequence[runs.Evaluation]) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for evaluation in evaluations:
        for line in evaluation.answers:
            text = None if line.withheld else line.response
            answer = Answer(line.key, evaluation.model, line.benchmark, line.subset, line.item_id, text)
            found.setdefault(line.key, answer)
    return found


def _alphas(raters: Sequence[Rater], answers: Mapping[str, Answer]) -> list[tuple[str, str, agreement.Alpha]]:
    groups = {
        EVERYONE: list(raters),
        JUDGES: [rater for rater in raters if rater.kind == JUDGE],
        PEOPLE: [rater for rater in raters if rater.kind == PERSON],
    }
    subsets = list(dict.fromkeys((answer.benchmark, answer.subset) for answer in answers.values()))
    found = []
    for name, members in groups.items():
        if len(members) < 2 or (name != EVERYONE and len(members) == len(raters)):
            continue
        for where in [None, *(subsets if len(subsets) > 1 else ())]:
            keys = {a.key for a in answers.values() if where is None or (a.benchmark, a.subset) == where}
            alpha = agreement.alpha({k: v for k, v in member.labels.items() if k in keys} for member in members)
            if alpha.answers:
                found.append((name, ALL if where is None else " ".join(where), alpha))
    return found


def _majority(people: Sequence[labelled.Person], answers: Mapping[str, Answer]) -> dict[str, str | None]:
    said = {key: [person.labels[key] for person in people if key in person.labels] for key in answers}
    return {key: agreement.majority(labels) for key, labels in said.items() if len(labels) > 1}
