"""Brings the finished seeds of one experiment together: means, and what made them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
import json
from pathlib import Path
from typing import Any, TypeVar

from vlguard_jax import errors
from vlguard_jax.reporting import seeds
from vlguard_jax.safety import asked
from vlguard_jax.safety import results
from vlguard_jax.safety import summary

R = TypeVar("R", bound=summary.Row)
Rates = dict[str, dict[str, dict[str, seeds.Mean]]]  # model -> subset -> metric -> figures


def read(part: Path, name: str) -> Any:
    """A JSON file of a finished seed, whose folder is `part`.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        return json.loads((part / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise errors.UserError(f"{part / name} cannot be read ({e}); {_way(part)}") from e


def rows(part: Path, name: str, kind: type[R]) -> list[R]:
    """Result rows of a finished seed. Raises as `read`."""
    return summary.read(part / name, kind, _way(part))


def _way(part: Path) -> str:
    return f"remove {part} and start again"


def rates(
    parts: Sequence[Path],
    runs: Sequence[Sequence[summary.Row]],
    *,
    same_items: bool,
    without_seed: Collection[str] = (),
) -> Rates:
    """Means and intervals of the rows of one judge a measure that all seeds share.

    Args:
      parts: folders of the seeds, for messages.
      runs: their rows.
      same_items: whether all seeds were asked the same.
      without_seed: models that no seed changes; they count once.

    Raises:
      UserError: the seeds do not measure the same, or one is there twice.
    """
    keyed = [{(row.model, row.subset, row.metric): row for row in rows} for rows in runs]
    for part, found in zip(parts, keyed, strict=True):
        for model, subset, metric in sorted(found.keys() ^ keyed[0].keys()):
            raise errors.UserError(
                f"{part} and {parts[0]} do not both have {metric} of {model} on {subset}; they are of"
                " different versions"
            )
    means: Rates = {}
    for model, subset, metric in keyed[0]:
        same = [found[model, subset, metric] for found in keyed]
        sizes = [row.n for row in same]
        if len(set(sizes)) > 1:
            raise errors.UserError(
                f"{parts[0]} and another seed asked different numbers of {subset} ({sizes}); run all seeds anew"
            )
        if model in without_seed:
            same = same[:1]
        for part, row in zip(parts[1:], same[1:], strict=False):  # a model without a seed has one row
            if difference := _difference(row, same[0]):
                raise errors.UserError(
                    f"{part} and {parts[0]}, {model} on {subset}: {difference}; remove one of them and start again"
                )
        means.setdefault(model, {}).setdefault(subset, {})[metric] = seeds.over(same, same_items=same_items)
    return means


def _difference(ours: summary.Row, theirs: summary.Row) -> str:
    """Why two seeds' rows cannot be averaged, "" if they can.

    Their items may differ on purpose: a seed can be another world.
    """
    for name in ("benchmark", "judge", "judge_version", "image_mode", "first_n", "part"):
        if (own := getattr(ours, name)) != (other := getattr(theirs, name)):
            return f"{name.replace('_', ' ')} {own!r}, not {other!r}"
    if ours.weights_sha256 == theirs.weights_sha256:
        return "the same weights, one run counted twice"
    return asked.how_of(ours).difference(asked.how_of(theirs))


def versions(folders: Sequence[Path]) -> tuple[str, ...]:
    """ "library version" of everything that wrote an answer below the folders."""
    found = set()
    for folder in folders:
        for path in folder.glob(f"**/eval/*/{results.GENERATIONS}"):
            with path.open(encoding="utf-8") as file:
                found |= {f"{name} {version}" for name, version in json.loads(file.readline())["versions"].items()}
    return tuple(sorted(found))
