"""Which of two models' answers to the same question people prefer, as in the paper's human study (Table 5)."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from pathlib import Path

from vlguard_jax import errors
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import labelled
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.safety import agreement
from vlguard_jax.safety import labels as labels_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import statistics

CAPTION = (
    "Percent of questions on which people prefer the first model's answer to the other's, the mean over raters; equally"
    " good answers count half. 95 % interval: Wilson's of as many questions. Alpha: Krippendorff's, of the raters."
)
WON, LOST, EVEN = "won", "lost", "even"
SCORES = {WON: 1.0, EVEN: 0.5, LOST: 0.0}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two answers to one question. `swapped`: the page shows `b` first, which the key decides like a coin."""

    a: results.GenerationLine
    b: results.GenerationLine
    of_a: runs.Evaluation
    of_b: runs.Evaluation

    @property
    def key(self) -> str:
        """Names the pair in label files."""
        return results.sha256(f"{self.a.key} {self.b.key}")

    @property
    def swapped(self) -> bool:
        """Whether `b` is shown first."""
        return int(self.key[:2], 16) % 2 == 1

    @property
    def digest(self) -> str:
        """Of both texts."""
        texts = [line.response if line.withheld else results.sha256(line.response) for line in (self.a, self.b)]
        return results.sha256(" ".join(texts))


def pairs(ours: Sequence[runs.Evaluation], theirs: Sequence[runs.Evaluation]) -> list[Pair]:
    """Every answer of `ours` with every one of `theirs` to the same question and pictures, but for itself."""
    to: dict[tuple[object, ...], list[tuple[runs.Evaluation, results.GenerationLine]]] = {}
    for other in theirs:
        for line in other.answers:
            to.setdefault(_question(line), []).append((other, line))
    return [
        Pair(line, b, one, other)
        for one in ours
        for line in one.answers
        for other, b in to.get(_question(line), [])
        if line.key != b.key
    ]


def _question(line: results.GenerationLine) -> tuple[object, ...]:
    return line.benchmark, line.subset, line.item_id, line.question_sha256, line.pictures


def load(paths: Sequence[Path], evaluations: Sequence[runs.Evaluation]) -> tuple[list[Pair], list[labelled.Person]]:
    """(pairs that were judged, people with key -> WON, LOST or EVEN).

    Raises:
      UserError: as `labels.read`; a file of other labels, of other pairs or texts, or a rater who judges a pair twice.
    """
    known = {pair.key: pair for pair in pairs(evaluations, evaluations)}
    people: dict[str, dict[str, str]] = {}
    origins: dict[str, str] = {}
    for one in [labels for path in paths for labels in labels_lib.read(path)]:
        for answer in one.answers:
            if answer.asks != labels_lib.BETTER:
                raise errors.UserError(
                    f"--preferences: {answer.origin}: a label of one answer, not of two; name the file in --calibration"
                    " or --labels"
                )
            pair = known.get(answer.key)
            if pair is None:
                raise errors.UserError(
                    f"{answer.origin}: no two answers of these runs have the key {errors.short(answer.key)}; name the"
                    " runs of both models that were compared"
                )
            if answer.digest and answer.digest != pair.digest:
                raise errors.UserError(
                    f"{answer.origin}: the answers are not those of key {errors.short(answer.key)} in"
                    f" {results.GENERATIONS}: compare these again"
                )
            name = answer.rater or one.path.stem
            said = people.setdefault(name, {})
            if answer.key in said:
                raise errors.UserError(f"{answer.origin}: {name} judges this pair a second time; leave one of the two")
            said[answer.key] = _of_first(answer.label, pair.swapped)
            origins.setdefault(name, one.origin)
    judged = [pair for pair in known.values() if any(pair.key in said for said in people.values())]
    return judged, [labelled.Person(name, said, origins[name]) for name, said in people.items()]


def _of_first(label: str, swapped: bool) -> str:
    """What a choice between what is shown first and second means for the pair's `a`."""
    if label == EVEN:
        return EVEN
    return WON if (label == "first") != swapped else LOST


def section(judged: Sequence[Pair], people: Sequence[labelled.Person]) -> provenance.Section:
    """A line for every two models and subset."""
    groups: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in judged:
        groups.setdefault((pair.of_a.model, pair.of_b.model, pair.a.subset), []).append(pair)
    lines = []
    for (a, b, subset), members in groups.items():
        keys = {pair.key for pair in members}
        said = [{key: label for key, label in person.labels.items() if key in keys} for person in people]
        said = [one for one in said if one]
        means = [_mean([SCORES[one[key]] for one in said if key in one]) for key in keys]
        rate, n = _mean(means), len(keys)
        low, high = statistics.wilson(rate * n, n)
        interval = agreement.alpha(said).interval
        alpha = f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]" if interval else grid_lib.NONE
        even = sum(label == EVEN for one in said for label in one.values())
        figures = f"{grid_lib.percent(rate)} [{grid_lib.percent(low)}, {grid_lib.percent(high)}]"
        lines.append((a, b, grid_lib.SUBSETS.get(subset, subset), str(n), str(len(said)), figures, str(even), alpha))
    headings = ("model", "against", "questions", "n", "raters", "preferred", "judged equal", "alpha")
    notes = (f"Raters: {', '.join(f'{person.name} ({person.origin})' for person in people)}.",)
    return provenance.Section(((CAPTION, provenance.Table(headings, tuple(lines))),), notes)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def restricted(ours: Sequence[runs.Evaluation], theirs: Sequence[runs.Evaluation]) -> list[runs.Evaluation]:
    """`ours` with only the answers that `theirs` have a counterpart of, which the draw takes from.

    Raises:
      UserError: there is none.
    """
    compared = {pair.a.key for pair in pairs(ours, theirs)}
    found = [
        dataclasses.replace(one, answers=tuple(line for line in one.answers if line.key in compared)) for one in ours
    ]
    if not any(one.answers for one in found):
        raise errors.UserError(
            "--versus: it answers no question that the other runs answer, too; name an evaluation of the same benchmark"
        )
    return found
