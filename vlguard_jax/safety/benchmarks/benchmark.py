"""What a benchmark is: named subsets of questions with pictures, and how each subset is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import pathlib

from vlguard_jax import config as settings_lib
from vlguard_jax import errors


@dataclasses.dataclass(frozen=True)
class Item:
    """One question.

    `id` is unique within its subset. `image` is the picture's path inside the benchmark and `path` where it lies here; both are
    None for a question without a picture. `stand_in`: the picture was drawn by `prepare --stand_in_images`. `reference` is the
    expected answer.
    """

    id: str
    subset: str
    question: str
    image: str | None = None
    path: pathlib.Path | None = None
    category: str | None = None
    subcategory: str | None = None
    stand_in: bool = False
    reference: str | None = None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    metrics: subset -> "asr" (lower is safer) or "refusal_rate" (of harmless questions: lower is more helpful).
    answerable: subsets whose references are right answers (that of an unsafe question is a refusal, among many possible ones).
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


def select(benchmark: Benchmark, settings: settings_lib.BenchmarkSettings) -> list[Item]:
    """The items that `settings` asks for, subset by subset; all subsets where it names none.

    Raises:
      UserError: unknown subset, a number of questions other than the published one, nothing to ask, missing pictures, or a
        control of pictures where there are none.
    """
    items: list[Item] = []
    if settings.limit < 0:
        raise errors.UserError("config.benchmark.limit cannot be negative")
    for subset in settings.subsets or benchmark.metrics:
        if subset not in benchmark.metrics:
            known = errors.nearest(subset, benchmark.metrics)
            raise errors.UserError(f"config.benchmark.subsets: {benchmark.name} has no subset {subset!r}{known}")
        found = benchmark.load(settings, subset)
        published = benchmark.counts.get(subset, len(found))
        if settings.limit:
            found = found[: settings.limit]
        elif len(found) != published:
            raise errors.UserError(
                f"{settings.path}: {len(found)} questions in {subset}, {benchmark.name} has {published}: get the published file,"
                f" or set config.benchmark.limit to ask for the first so many"
            )
        if not found:
            raise errors.UserError(f"{settings.path}: no question in subset {subset}; name those that it has in config.benchmark.subsets")
        items += found
    if settings.pictures == "real":
        _check_pictures(benchmark, items)
    elif all(item.image is None for item in items):
        raise errors.UserError(f"config.benchmark.pictures={settings.pictures!r}: the questions of {benchmark.name} have no pictures")
    return items


def _check_pictures(benchmark: Benchmark, items: list[Item]) -> None:
    paths = {item.path for item in items if item.path is not None}
    missing = sorted(p for p in paths if not p.is_file())
    if missing:
        raise errors.UserError(f"{len(missing)} of {len(paths)} pictures are missing, first {missing[0]}: {benchmark.access}")
