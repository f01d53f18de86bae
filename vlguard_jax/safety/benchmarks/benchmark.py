"""A benchmark: named subsets of questions with pictures, and how each subset is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import pathlib
from typing import NamedTuple

from vlguard_jax import config as settings_lib
from vlguard_jax import errors


class Picture(NamedTuple):
    """name: its path inside the benchmark. path: its path on this machine."""

    name: str
    path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Item:
    """One question, and its pictures in the order in which it is asked about them.

    `id` is unique within its subset. `stand_in`: the pictures were drawn by `prepare --stand_in_images`. `reference` is
    the expected answer.
    """

    id: str
    subset: str
    question: str
    pictures: tuple[Picture, ...] = ()
    category: str | None = None
    subcategory: str | None = None
    stand_in: bool = False
    reference: str | None = None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    metrics: subset -> "asr" (lower is safer) or "refusal_rate" (of harmless questions: lower is more helpful).
    answerable: subsets whose references are right answers (the reference of an unsafe question is one of many possible
    refusals).
    counts: subset -> published number of questions; a subset that is not listed may have any.
    load: (settings, subset) -> its items in their published order.
    access: where the pictures come from and how to get them, for the message when some are missing.
    """

    name: str
    metrics: Mapping[str, str]
    counts: Mapping[str, int]
    load: Callable[[settings_lib.BenchmarkSettings, str], list[Item]]
    access: str = ""
    answerable: tuple[str, ...] = ()


def check_subsets(benchmark: Benchmark, settings: settings_lib.BenchmarkSettings) -> None:
    """Raise UserError where `settings` names a subset twice, or one that the benchmark does not have."""
    for i, subset in enumerate(settings.subsets):
        if subset not in benchmark.metrics:
            known = errors.nearest(subset, benchmark.metrics)
            raise errors.UserError(f"config.benchmark.subsets: {benchmark.name} has no subset {subset!r}{known}")
        if subset in settings.subsets[:i]:
            raise errors.UserError(f"config.benchmark.subsets names {subset} twice; its questions would count twice")


def select(benchmark: Benchmark, settings: settings_lib.BenchmarkSettings) -> list[Item]:
    """The items that `settings` selects, subset by subset; all subsets where it names none.

    Raises:
      UserError: unknown or repeated subset, a number of questions other than the published one, nothing to ask, missing
        pictures, or a control without pictures where there are none.
    """
    items: list[Item] = []
    if settings.limit < 0:
        raise errors.UserError("config.benchmark.limit cannot be negative")
    check_subsets(benchmark, settings)
    for subset in settings.subsets or benchmark.metrics:
        items += _load(benchmark, settings, subset)[0]
    if settings.pictures == "real":
        _check_pictures(benchmark, items)
    elif not any(item.pictures for item in items):
        raise errors.UserError(
            f"config.benchmark.pictures={settings.pictures!r}: the questions of {benchmark.name} have no pictures"
        )
    return items


def first_n(benchmark: Benchmark, settings: settings_lib.BenchmarkSettings) -> dict[str, int | None]:
    """Subset -> the limit, where it leaves questions out; None where the subset is asked whole. Raises as `select`."""
    subsets = settings.subsets or benchmark.metrics
    return {subset: settings.limit if _load(benchmark, settings, subset)[1] else None for subset in subsets}


def check_ids(named: Iterable[tuple[str, str]]) -> None:
    """Refuse duplicate ids: they are the key by which answers are found again and paired with another run's.

    Args:
      named: (id, name of the record in messages) of each record.

    Raises:
      UserError: an id comes twice.
    """
    seen: dict[str, str] = {}
    for id_, origin in named:
        if id_ in seen:
            first = seen[id_].rpartition(": ")[2]
            raise errors.UserError(f"{origin}: the id is that of {first} too; give each its own")
        seen[id_] = origin


def _load(benchmark: Benchmark, settings: settings_lib.BenchmarkSettings, subset: str) -> tuple[list[Item], bool]:
    """(items of a subset that are asked, whether the limit leaves some out)."""
    found = benchmark.load(settings, subset)
    limit, published = settings.limit, benchmark.counts.get(subset)
    if not found:
        raise errors.UserError(
            f"{settings.path}: no question in subset {subset}; name those that it has in config.benchmark.subsets"
        )
    if published is None:
        return found[: limit or None], 0 < limit < len(found)
    if 0 < limit < published:
        if len(found) < limit:
            raise errors.UserError(
                f"{settings.path}: {len(found)} questions in {subset}, {benchmark.name} has {published}: get the"
                f" published file, or set config.benchmark.limit to at most {len(found)}"
            )
        return found[:limit], True
    if len(found) != published:
        raise errors.UserError(
            f"{settings.path}: {len(found)} questions in {subset}, {benchmark.name} has {published}: get the published"
            f" file, or set config.benchmark.limit to fewer than {min(published, len(found) + 1)} to ask for the first"
            " so many"
        )
    return found, False


def _check_pictures(benchmark: Benchmark, items: list[Item]) -> None:
    paths = {picture.path for item in items for picture in item.pictures}
    missing = sorted(p for p in paths if not p.is_file())
    if missing:
        raise errors.UserError(
            f"{len(missing)} of {len(paths)} pictures are missing, first {missing[0]}: {benchmark.access}"
        )
