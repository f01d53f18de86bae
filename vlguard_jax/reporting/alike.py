"""Checks that runs to be compared or averaged were asked the same questions, and names what differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses

from vlguard_jax import errors
from vlguard_jax.reporting import runs
from vlguard_jax.safety import asked as asked_lib
from vlguard_jax.safety import summary


@dataclasses.dataclass(frozen=True)
class Rated:
    """A row of summary.json with its evaluation."""

    evaluation: runs.Evaluation
    row: summary.Row

    @property
    def asked(self) -> dict[str, asked_lib.Asked]:
        """Id -> what was asked; empty without the answers."""
        return {
            line.item_id: asked_lib.of_line(line) for line in self.evaluation.answers if line.subset == self.row.subset
        }

    @property
    def digests(self) -> tuple[str, str]:
        """Of questions and of pictures; rows with equal digests were asked the same."""
        return self.row.questions_sha256, self.row.pictures_sha256

    def difference(self, other: Rated) -> str:
        """The first item of the subset that the two were asked differently, in words; "" if there is none."""
        if self.digests == other.digests:
            return ""
        ours, theirs = self.asked, other.asked
        for id_ in sorted(ours.keys() & theirs.keys()):
            if found := ours[id_].difference(theirs[id_]):
                return f"item {id_} has {found}"
        for id_ in sorted(ours.keys() ^ theirs.keys()) if ours and theirs else ():
            return f"only {(self if id_ in ours else other).evaluation.folder} asked item {id_}"
        return "their questions or pictures differ, and their answers are not at hand to say where"

    def part_of(self, other: Rated) -> bool:
        """Whether a limit left only the first of the other's questions; tables say so beside the rate."""
        ours, theirs = self.asked, other.asked
        return bool(self.row.first_n and ours) and ours.items() <= theirs.items()

    def other_way(self, other: Rated) -> str:
        """How the asking or the judging differs (judge, template, preprocessing, limits of an answer, sampling); "" if
        it does not."""
        if self.row.judge != other.row.judge:
            return f"judged by {self.row.judge}, not {other.row.judge}"
        for name in ("judge_version", "judge_prompt_sha256"):
            ours, theirs = getattr(self.row, name), getattr(other.row, name)
            if ours != theirs:
                return f"{self.row.judge} with {name.replace('_', ' ')} {ours!r}, not {theirs!r}"
        return asked_lib.how_of(self.row).difference(asked_lib.how_of(other.row))


def check(evaluations: Iterable[runs.Evaluation]) -> None:
    """Refuse runs that would share a column of a table but answered different questions.

    A limit may have left out questions, and the template, the preprocessing, the limits of an answer and its sampling
    may differ: tables say so.

    Raises:
      UserError: two runs differ; the first item that does is named.
    """
    by_column: dict[tuple[str, ...], list[Rated]] = {}
    for evaluation in evaluations:
        for row in evaluation.rows:
            by_column.setdefault((row.benchmark, row.subset, row.pictures), []).append(Rated(evaluation, row))
    for (benchmark, subset, _), rated in by_column.items():
        most = max(rated, key=lambda r: r.row.n)
        for one in rated:
            found = one.difference(most)
            if found and not one.part_of(most):
                raise errors.UserError(
                    f"{one.evaluation.folder} and {most.evaluation.folder} were not asked the same {subset} of"
                    f" {benchmark}: {found}; evaluate them alike, or report each of them alone"
                )


def check_seeds(label: str, subset: str, rated: Sequence[tuple[str, Rated]]) -> None:
    """Refuse to average (name, row) pairs that are not seeds of one arm, asked the same in the same way.

    Raises:
      UserError: two have the same weights, or the first item or setting that differs, with both names.
    """
    (first, one), *others = rated
    weights: dict[str, str] = {one.row.weights_sha256: first}
    for name, other in others:
        found = other.difference(one) or other.other_way(one)
        if found:
            raise errors.UserError(
                f"{name} and {first}, seeds of {label!r}, were not asked {subset} alike: {found}; evaluate them alike"
            )
        same = weights.setdefault(other.row.weights_sha256, name)
        if same != name:
            raise errors.UserError(
                f"{name} and {same}, seeds of {label!r}, have the same weights: one model cannot count twice"
            )
