"""People's labels that a report is given: which of its answers they are of, who gave them, what most raters say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path

from vlguard_jax import errors
from vlguard_jax.reporting import runs
from vlguard_jax.safety import agreement
from vlguard_jax.safety import labels as labels_lib
from vlguard_jax.safety import results

AGAIN = "name the runs whose answers were labelled, or leave the column out"


@dataclasses.dataclass(frozen=True)
class Person:
    """Someone who labelled answers of the report's runs. `labels`: key -> label; `origin`: the file."""

    name: str
    labels: Mapping[str, str]
    origin: str


def load(paths: Sequence[Path], evaluations: Sequence[runs.Evaluation], flag: str) -> list[labels_lib.Labels]:
    """The labelled answers of all files, checked against the runs' answers where they have keys.

    Raises:
      UserError: as `labels.read`; labels with a key that is of no answer of `evaluations`, or of another one; a rater
        who labels an answer twice; or files about different things.
    """
    found = [labels for path in paths for labels in labels_lib.read(path)]
    answers = {line.key: line for e in evaluations for line in e.answers}
    models = models_of(evaluations)
    check_asked(found, flag)
    first: dict[tuple[str, str], str] = {}
    for one in found:
        for labelled in one.answers:
            if labelled.key:
                _check_twice(labelled, labelled.rater or f"{one.path} {one.model}", first)
                _check_answer(labelled, answers.get(labelled.key), models)
    return found


def check_asked(found: Sequence[labels_lib.Labels], flag: str) -> None:
    """Raises UserError where not all labels are of one kind, or some compare two answers."""
    first: labels_lib.Labelled | None = None
    for labelled in (labelled for one in found for labelled in one.answers):
        first = first or labelled
        if labelled.asks == labels_lib.BETTER:
            raise errors.UserError(
                f"--{flag}: {labelled.origin}: compares two answers; name this file in --preferences of report"
            )
        if labelled.asks != first.asks:
            raise errors.UserError(
                f"--{flag}: {first.origin}: a label of {first.asks}, and {labelled.origin}: one of {labelled.asks};"
                " name those of one kind"
            )


def models_of(evaluations: Sequence[runs.Evaluation]) -> dict[str, set[str]]:
    """Key of an answer -> the models that gave it, as tables call them."""
    found: dict[str, set[str]] = {}
    for evaluation in evaluations:
        for line in evaluation.answers:
            found.setdefault(line.key, set()).add(evaluation.model)
    return found


def _check_twice(labelled: labels_lib.Labelled, who: str, first: dict[tuple[str, str], str]) -> None:
    before = first.setdefault((labelled.key, who), labelled.origin)
    if before != labelled.origin:
        place = (
            before.rpartition(": ")[2] if before.rpartition(": ")[0] == labelled.origin.rpartition(": ")[0] else before
        )
        raise errors.UserError(
            f"{labelled.origin}: the answer of key {errors.short(labelled.key)} has a label in {place}, too; leave one"
            " of them, or it counts twice"
        )


def _check_answer(
    labelled: labels_lib.Labelled, line: results.GenerationLine | None, models: Mapping[str, set[str]]
) -> None:
    if line is None:
        raise errors.UserError(
            f"{labelled.origin}: no answer of these runs has the key {errors.short(labelled.key)}; {AGAIN}"
        )
    if not labelled.fits(line.response):
        raise errors.UserError(
            f"{labelled.origin}: the answer is not the one of key {errors.short(labelled.key)} in"
            f" {results.GENERATIONS}: the label is of another answer; label these again"
        )
    if labelled.model and labelled.model not in models[labelled.key]:
        raise errors.UserError(
            f"{labelled.origin}: model={errors.short(labelled.model)}, and the answer of this key is of"
            f" {' and '.join(map(errors.short, sorted(models[labelled.key])))}; name that, or leave the column out"
        )


def people(found: Sequence[labels_lib.Labels], flag: str) -> list[Person]:
    """The raters of the labels that have keys: by the column `rater`, else a file is one.

    Raises:
      UserError: no label has a key; or two files are one rater by their names.
    """
    labels: dict[str, dict[str, str]] = {}
    origins: dict[str, dict[str, None]] = {}
    for one in found:
        for labelled in one.answers:
            if labelled.key:
                name = labelled.rater or one.path.stem
                said = labels.setdefault(name, {})
                if labelled.key in said and not labelled.rater:
                    raise errors.UserError(
                        f"--{flag}: {labelled.origin}: two files called {one.path.name} label the answer of key"
                        f" {errors.short(labelled.key)}; give them the raters' names"
                    )
                said[labelled.key] = labelled.label
                origins.setdefault(name, {})[one.origin] = None
    if found and not labels:
        raise errors.UserError(
            f"--{flag}: no label in {', '.join(dict.fromkeys(str(one.path) for one in found))} has a key, so nothing"
            " says which answer of these runs it is of; `python -m vlguard_jax.label` writes a page for such labels"
        )
    return [Person(name, said, ", ".join(origins[name])) for name, said in labels.items()]


def by_model(found: Sequence[labels_lib.Labels], evaluations: Sequence[runs.Evaluation]) -> list[labels_lib.Labels]:
    """One set of labels a model, for calibration: where raters have names, the label that most of them give an answer.

    Raises:
      UserError: two sets of one model.
    """
    named = [one for one in found if _by_raters(one)]
    sets = [one for one in found if not _by_raters(one)]
    sets += _most(people(named, "calibration"), named, evaluations)
    first: dict[str, labels_lib.Labels] = {}
    for one in sets:
        if other := first.get(one.model):
            raise errors.UserError(
                f"--calibration: {other.path} and {one.path} both have answers of {errors.short(one.model)}; name each"
                " model's answers once"
            )
        first[one.model] = one
    return sets


def _by_raters(labels: labels_lib.Labels) -> bool:
    """Whether these are raters' labels on answers of these runs, of which several may be on one answer."""
    return all(labelled.key for labelled in labels.answers) and any(labelled.rater for labelled in labels.answers)


def _most(
    raters: Sequence[Person], found: Sequence[labels_lib.Labels], evaluations: Sequence[runs.Evaluation]
) -> list[labels_lib.Labels]:
    """What most raters say of each answer, by the model that gave it."""
    first = {labelled.key: (one, labelled) for one in found for labelled in one.answers}
    models = models_of(evaluations)
    sets: dict[str, list[labels_lib.Labelled]] = {}
    tied: dict[str, int] = {}
    for key in dict.fromkeys(key for rater in raters for key in rater.labels):
        model = min(models[key])
        label = agreement.majority(rater.labels[key] for rater in raters if key in rater.labels)
        if label is None:
            tied[model] = tied.get(model, 0) + 1
        else:
            sets.setdefault(model, []).append(dataclasses.replace(first[key][1], label=label))
    made = []
    for model in dict.fromkeys(evaluation.model for evaluation in evaluations if evaluation.model in sets):
        answers = sets[model]
        one, _ = first[answers[0].key]
        ours = [rater for rater in raters if any(answer.key in rater.labels for answer in answers)]
        told = " and ".join(f"{rater.name} ({rater.origin})" for rater in ours)
        if len(ours) > 1:
            told = f"what most say of {told}; {tied.get(model, 0)} on which they are even are left out"
        made.append(labels_lib.Labels(model, one.path, one.sha256, tuple(answers), told))
    return made
