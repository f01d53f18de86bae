"""Selects records of a file by id, category, leak, count and weight, and those that are held out of a training.

Draws depend only on their seed.
"""

from __future__ import annotations

from collections import Counter
import dataclasses
import hashlib
import pathlib
import random

from jaxtyping import Int64
import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.data import file_index
from vlguard_jax.data import vlguard
from vlguard_jax.data.tfds import reader


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the sources, of which `share`, chosen by `seed`, is held out of the training: that, or the rest."""

    share: float
    seed: int
    held_out: bool

    def holds(self, key: str) -> bool:
        """Whether conversations of this key are in the part: of its hash alone, so that neither their order nor other
        conversations matter."""
        digest = hashlib.sha256(f"{self.seed}\n{key}".encode("utf-8", "surrogatepass")).digest()
        return (int.from_bytes(digest[:8]) < self.share * 2**64) == self.held_out


def select(
    found: file_index.FileIndex, settings: config.SourceSettings, name: str, part: Part | None = None
) -> Int64[np.ndarray, " m"]:
    """Record numbers in file order; with a weight above 1, the whole list repeated.

    part: of what the settings select; of what is held out, each once. Conversations about one picture (the first of
    each) are in the same part, and so are those of one id that have none.

    Raises:
      UserError: an unexpected number of records, an id or category that is not there, or a sample larger than the
        source.
    """
    where = f"config.data.sources.{name}"
    if settings.expect and len(found) != settings.expect:
        raise errors.UserError(
            f"{settings.path}: {len(found):,} conversations, {where}.expect={settings.expect:,}: download it again"
        )
    keep = np.ones(len(found), bool)
    if settings.include_ids:
        keep &= _named(found, settings.include_ids, f"{where}.include_ids", name)
    if settings.exclude_ids:
        keep &= ~_named(found, settings.exclude_ids, f"{where}.exclude_ids", name)
    if settings.leave_out:
        keep &= ~_in_categories(found, settings.leave_out, f"{where}.leave_out")
    if settings.leak_free:
        keep &= ~_leaked(found, settings, where)
    chosen = np.flatnonzero(keep)
    if settings.count:
        chosen = _sample(chosen, settings.count, settings.sample_seed, f"{where}.count")
    if part is not None:
        chosen = chosen[np.asarray([part.holds(_key(found, i)) for i in chosen.tolist()], bool)]
        if part.held_out:
            return chosen
    return _weighted(chosen, settings, where)


def _key(found: file_index.FileIndex, i: int) -> str:
    """What record `i` is about, for `Part`: its first picture, or its id as the file has it."""
    if found.images[i]:
        return f"picture {found.images[i][0]}"
    before, mark, _ = found.ids[i].rpartition("~")
    return f"id {before if mark and before in found.repeated else found.ids[i]}"


def copy_names(found: file_index.FileIndex, chosen: Int64[np.ndarray, " m"]) -> list[str]:
    """Sample ids of `chosen`: the record's, and `ID*2`, `ID*3` for its further copies."""
    if (np.diff(chosen) > 0).all():  # nothing twice
        return [found.ids[i] for i in chosen.tolist()]
    seen: Counter[int] = Counter()
    names = []
    for i in chosen.tolist():
        seen[i] += 1
        names.append(found.ids[i] if seen[i] == 1 else f"{found.ids[i]}*{seen[i]}")
    return names


def read_ids(path: str, setting: str) -> set[str]:
    """The ids in a text file, one per line.

    Raises:
      UserError: no such file, or it is not text.
    """
    try:
        text = files.read_text(path)
    except errors.UserError as e:
        raise errors.UserError(f"{e} ({setting})") from e
    return {line.strip() for line in text.splitlines()} - {""}


def _named(found: file_index.FileIndex, path: str, setting: str, name: str) -> np.ndarray:
    wanted = read_ids(path, setting)
    absent = sorted(wanted.difference(found.ids))
    if absent:
        first = errors.short(absent[0])
        shared = (
            f" ({first} names several conversations: write {absent[0]}~1, ...)" if absent[0] in found.repeated else ""
        )
        raise errors.UserError(
            f"{path}: {len(absent)} of {len(wanted)} ids are not in source {name!r}, the first is {first}{shared}"
        )
    return np.asarray([id_ in wanted for id_ in found.ids])


def _in_categories(found: file_index.FileIndex, names: tuple[str, ...], setting: str) -> np.ndarray:
    known = {part for pair in found.categories for part in pair} - {""}
    for name in names:
        if name not in known:
            raise errors.UserError(
                f"{setting}: no record is of category {errors.short(name)}{errors.nearest(name, sorted(known))}"
            )
    return np.asarray([bool(set(pair) & set(names)) for pair in found.categories])


def _leaked(found: file_index.FileIndex, settings: config.SourceSettings, where: str) -> np.ndarray:
    folder = pathlib.Path(settings.path)
    if settings.format == "vlguard":
        test = vlguard.read_items(folder if folder.is_dir() else folder.parent, "test")
    elif settings.format == "tfds":
        test = reader.open_prepared(folder, "test").items()
    else:
        raise errors.UserError(f'{where}.leak_free is for the formats "vlguard" and "tfds"')
    held_out = {item.image for item in test}
    return np.asarray([bool(held_out.intersection(names)) for names in found.images])


def _sample(chosen: Int64[np.ndarray, " m"], count: int, seed: int, setting: str) -> Int64[np.ndarray, " k"]:
    if count > len(chosen):
        raise errors.UserError(f"{setting}={count}, but the source has only {len(chosen)} conversations")
    return chosen[sorted(random.Random(seed).sample(range(len(chosen)), count))]


def _weighted(chosen: Int64[np.ndarray, " m"], settings: config.SourceSettings, where: str) -> Int64[np.ndarray, " k"]:
    whole, part = divmod(settings.weight, 1.0)
    rest = _sample(chosen, round(part * len(chosen)), settings.sample_seed, f"{where}.weight")
    return np.concatenate([chosen] * int(whole) + [rest])
