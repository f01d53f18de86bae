"""Answers of several runs drawn for people to label: at random by a seed, the same questions for every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib

from vlguard_jax import errors
from vlguard_jax.reporting import agreed
from vlguard_jax.reporting import runs
from vlguard_jax.safety import results


@dataclasses.dataclass(frozen=True)
class Drawn:
    """An answer with its run. `of`: how many the run has to that subset."""

    evaluation: runs.Evaluation
    line: results.GenerationLine
    of: int


def draw(evaluations: Sequence[runs.Evaluation], *, n: int = 0, each: int = 0, seed: int = 0) -> list[Drawn]:
    """Answers in an order that tells nothing of where they are from; an answer that several runs hold counts once.

    Only subsets whose refusals or harm are rated take part. Within one, the questions with the smallest hashes of seed
    and id are taken, so that models are asked the same ones. Never chosen by a verdict: that would distort the judges'
    error.

    Args:
      n: how many in all, of each subset of each run in proportion to its size.
      each: in place of `n`, how many of each subset of each run, or all there are.

    Raises:
      UserError: there are fewer than `n`, none at all, or an answer's text was withheld.
    """
    strata = _strata(evaluations, seed)
    total = sum(map(len, strata))
    if not total:
        raise errors.UserError(
            "these runs have no answers whose refusal or harm is judged; name working directories of evaluate with such"
            " a judge in config.judges"
        )
    if n > total:
        raise errors.UserError(f"--n={n}: these runs have {total:,} answers to draw from; name at most that")
    sizes = _shares([len(one) for one in strata], n) if n else [each] * len(strata)
    found = [answer for one, size in zip(strata, sizes, strict=True) for answer in one[:size]]
    if withheld := [answer for answer in found if answer.line.withheld]:
        raise errors.UserError(
            f"{withheld[0].evaluation.folder / results.GENERATIONS}: the text of {len(withheld)} of the {len(found)}"
            " drawn answers was withheld, so nobody can label them; evaluate without config.withhold_text"
        )
    return sorted(found, key=lambda answer: _hash(seed, "order", answer.line.key))


def told(found: Sequence[Drawn]) -> list[str]:
    """A line for every run and subset: how many of its answers were drawn."""
    counts: dict[tuple[str, str, int], int] = {}
    for answer in found:
        stratum = (str(answer.evaluation.folder), answer.line.subset, answer.of)
        counts[stratum] = counts.get(stratum, 0) + 1
    return [f"{folder}: {count} of {of} answers to {subset}" for (folder, subset, of), count in sorted(counts.items())]


def _strata(evaluations: Sequence[runs.Evaluation], seed: int) -> list[list[Drawn]]:
    """The answers of every subset of every run, in the order in which they are drawn."""
    seen: set[str] = set()
    found = []
    for evaluation in evaluations:
        for subset in dict.fromkeys(row.subset for row in evaluation.rows if row.metric in agreed.MEASURES):
            lines: Mapping[str, results.GenerationLine] = {
                line.key: line for line in evaluation.answers if line.subset == subset and line.key not in seen
            }
            seen |= lines.keys()
            drawn = [Drawn(evaluation, line, len(lines)) for line in lines.values()]
            found.append(sorted(drawn, key=lambda a: _hash(seed, a.line.benchmark, a.line.subset, a.line.item_id)))
    return found


def _shares(sizes: Sequence[int], n: int) -> list[int]:
    """`n` in proportion to the sizes, by largest remainders (Hamilton's method)."""
    total = sum(sizes)
    found = [n * size // total for size in sizes]
    rest = sorted(range(len(sizes)), key=lambda i: -(n * sizes[i] % total))
    for i in rest[: n - sum(found)]:
        found[i] += 1
    return found


def _hash(seed: int, *parts: str) -> str:
    return hashlib.sha256("\0".join((str(seed), *parts)).encode("utf-8", "surrogatepass")).hexdigest()
