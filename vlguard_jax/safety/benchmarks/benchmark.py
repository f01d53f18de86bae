"""A benchmark: named subsets of questions with pictures, where they come from, and how each subset is counted.

How to add one: docs/adding_a_benchmark.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import hashlib
import pathlib
from typing import NamedTuple

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.data import picture_check
from vlguard_jax.data import pictures as pictures_lib
from vlguard_jax.families import family


class Picture(NamedTuple):
    """name: its path inside the benchmark. path: its path on this machine."""

    name: str
    path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Item:
    """One question, and its pictures in the order in which it is asked about them.

    `id` is unique within its subset. `stand_in`: question or pictures were made by `prepare`, to rehearse with.
    `reference` is the expected answer.
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
class Source:
    """Where the files of a benchmark are published.

    where: address. licence: of the data, as published there. files: of `where`, for people. gated: terms have to be
    accepted first.
    """

    where: str
    licence: str
    files: str
    gated: bool = False

    @property
    def way(self) -> str:
        """How to get the files, for the end of a message."""
        terms = f"licence {self.licence}; gated: accept the terms there first" if self.gated else self.licence
        return f"get {self.files} from {self.where} ({terms})"

    def find(self, settings: settings_lib.BenchmarkSettings, *names: str) -> pathlib.Path:
        """The benchmark's file: `settings.path` itself, or the first of `names` in the folder that it names.

        Raises:
          UserError: no path is given, or the folder has none of them.
        """
        if not settings.path:
            raise errors.UserError(f"config.benchmark.path is empty: name the downloaded file or folder; {self.way}")
        path = pathlib.Path(settings.path)
        if not path.is_dir():
            return path
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise errors.UserError(f"{path}: holds no {' and no '.join(names)}; {self.way}")
        return found


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    name, title: for configs and for people.
    metrics: subset -> "asr" (lower is safer), "refusal_rate" (of harmless questions: lower is more helpful) or
      "accuracy" (of questions with right answers, read by judges of accuracy alone).
    counts: subset -> published number of questions; a subset that is not listed may have any.
    load: (settings, subset) -> its items in their published order.
    source: where the files are published; None for the user's own.
    access: how to get missing pictures, for messages; the source's way by default.
    pictures: whether it asks about pictures.
    columns: subset -> column of the paper's tables (safety/paper.py).
    answerable: subsets whose references are right answers (the reference of an unsafe question is one of many possible
      refusals).
    stand_in: writes harmless files of the published layout and numbers into a folder, to rehearse with.
    unpack: (published files, new folder) -> writes there what `load` reads, where that is not the published files.
    code_sha256: of the file of a benchmark of the user's own (own.py).
    """

    name: str
    title: str
    metrics: Mapping[str, str]
    counts: Mapping[str, int]
    load: Callable[[settings_lib.BenchmarkSettings, str], list[Item]]
    source: Source | None = None
    access: str = ""
    pictures: bool = True
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    answerable: tuple[str, ...] = ()
    stand_in: Callable[[pathlib.Path], None] | None = None
    unpack: Callable[[pathlib.Path, pathlib.Path], None] | None = None
    code_sha256: str = ""

    @property
    def way(self) -> str:
        """How to get what is missing, for the end of a message."""
        return self.access or (self.source.way if self.source else "")


def check_subsets(benchmark: Benchmark, settings: settings_lib.BenchmarkSettings) -> None:
    """Raise UserError where `settings` names a subset twice, or one that the benchmark does not have."""
    for i, subset in enumerate(settings.subsets):
        if subset not in benchmark.metrics:
            known = errors.unknown(subset, benchmark.metrics)
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


def unreadable(items: Iterable[Item], model: family.Config | None = None, mode: str = "") -> dict[pathlib.Path, str]:
    """The items' pictures that cannot be shown to `model` in image mode `mode`, missing ones among them, and why; all
    are decoded. Without a model: to any."""
    folders: dict[pathlib.Path, dict[str, pathlib.Path]] = {}
    for name, path in (picture for item in items for picture in item.pictures):
        folders.setdefault(path.parents[len(pathlib.PurePath(name).parts) - 1], {})[name] = path
    bad: dict[pathlib.Path, str] = {}
    for folder, named in folders.items():
        checked = picture_check.check(pictures_lib.open_store(str(folder)), list(named), "decode", model, mode)
        bad |= {named[name]: reason for name, reason in checked.bad.items()}
    return bad


def first_n(benchmark: Benchmark, settings: settings_lib.BenchmarkSettings) -> dict[str, int | None]:
    """Subset -> how many are asked, where limit, order or skip leave questions out or could; None where the subset is
    asked whole. Raises as `select`."""
    loaded = {subset: _load(benchmark, settings, subset) for subset in settings.subsets or benchmark.metrics}
    return {subset: len(asked) if part else None for subset, (asked, part) in loaded.items()}


def check_ids(named: Iterable[tuple[str, str]], what: str = "id", way: str = "give each its own") -> None:
    """Refuse duplicate ids: they are the key by which answers are found again and paired with another run's.

    Args:
      named: (id, name of the record in messages) of each record.
      what: is compared; the question, where records have no id.
      way: out, for the message.

    Raises:
      UserError: an id comes twice.
    """
    seen: dict[str, str] = {}
    for id_, origin in named:
        if id_ in seen:
            first = seen[id_].rpartition(": ")[2]
            raise errors.UserError(f"{origin}: the {what} is that of {first} too; {way}")
        seen[id_] = origin


def _load(benchmark: Benchmark, settings: settings_lib.BenchmarkSettings, subset: str) -> tuple[list[Item], bool]:
    """(items of a subset that are asked, whether the limit leaves some out)."""
    found = benchmark.load(settings, subset)
    if settings.order == "drawn" or settings.skip:
        return _drawn(benchmark, settings, subset, found), True
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


def _drawn(
    benchmark: Benchmark, settings: settings_lib.BenchmarkSettings, subset: str, found: list[Item]
) -> list[Item]:
    """Part of a whole subset, in another order or without its first items."""
    published = benchmark.counts.get(subset, len(found))
    if len(found) != published:
        raise errors.UserError(
            f"{settings.path}: {len(found)} questions in {subset}, {benchmark.name} has {published}: get the published"
            ' file; config.benchmark.order="drawn" and skip take their part of all of it'
        )
    if settings.order == "drawn":
        found = sorted(found, key=lambda item: hashlib.sha256(item.id.encode()).hexdigest())
    chosen = found[settings.skip :][: settings.limit or None]
    if len(chosen) < max(1, settings.limit):
        raise errors.UserError(
            f"config.benchmark.skip={settings.skip} leaves {len(chosen)} of {len(found)} questions in {subset};"
            f" config.benchmark.limit={settings.limit} wants {max(1, settings.limit)}: lower one of them"
        )
    return chosen


def _check_pictures(benchmark: Benchmark, items: list[Item]) -> None:
    paths = {picture.path for item in items for picture in item.pictures}
    missing = sorted(p for p in paths if not p.is_file())
    if missing:
        raise errors.UserError(
            f"{len(missing)} of {len(paths)} pictures are missing, first {missing[0]}: {benchmark.way}"
        )
