"""Which labelled pictures make the set: review, caps on kinds and on openings of refusals, and the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math

from vlguard_jax import errors
from vlguard_jax.curating import asking
from vlguard_jax.curating import decisions
from vlguard_jax.curating import near
from vlguard_jax.curating import replies
from vlguard_jax.curating import scan
from vlguard_jax.curating import settings as settings_lib
from vlguard_jax.curating import taxonomy as taxonomy_lib

SPLITS = ("train", "test")
SAFE = "safe"


@dataclasses.dataclass(frozen=True)
class Chosen:
    """One record of the set. kind: its place in the taxonomy; of a safe picture SAFE, twice. reviewed: whether a person
    accepted or edited it."""

    picture: scan.Seen
    label: replies.Labelled
    language: str
    kind: taxonomy_lib.Place
    reviewed: bool


def choose(
    config: settings_lib.CurateConfig,
    outcomes: Sequence[asking.Outcome],
    reviewed: decisions.Reviewed,
    places: Mapping[str, taxonomy_lib.Place],
    *,
    only_accepted: bool,
) -> tuple[list[Chosen], list[near.Dropped]]:
    """The records of the set by picture name, and what was left out. Everything random follows from the seed and the
    pictures.

    Raises:
      UserError: no choice keeps `most_alike`.
    """
    dropped: list[near.Dropped] = []
    chosen = []
    for one in outcomes:
        name = one.picture.name
        if isinstance(one.found, replies.Fault):
            dropped.append(near.Dropped(name, one.found.reason, f"after {len(one.lines)} replies: {one.found.told}"))
        elif name in reviewed.rejected:
            dropped.append(near.Dropped(name, "rejected by a person", "on the review page"))
        elif only_accepted and name not in reviewed.accepted:
            dropped.append(near.Dropped(name, "not reviewed", "config.review.only_accepted"))
        else:
            label = reviewed.labels[name]
            kind = taxonomy_lib.Place(SAFE, SAFE) if label.safe else places[label.subcategory or ""]
            chosen.append(Chosen(one.picture, label, one.language, kind, name in reviewed.accepted))
    chosen = _balanced(config, chosen, dropped)
    return _varied(config, chosen, dropped), dropped


def _balanced(config: settings_lib.CurateConfig, chosen: list[Chosen], dropped: list[near.Dropped]) -> list[Chosen]:
    """At most so many of each kind; the finer cap first."""
    b = config.balance
    unsafe = [one for one in chosen if not one.label.safe]
    safe = [one for one in chosen if one.label.safe]
    unsafe = _capped(config.seed, unsafe, lambda one: one.kind.subcategory, b.most_per_subcategory, dropped)
    unsafe = _capped(config.seed, unsafe, lambda one: one.kind.category, b.most_per_category, dropped)
    safe = _capped(config.seed, safe, lambda one: SAFE, b.most_safe, dropped)
    return sorted([*unsafe, *safe], key=lambda one: one.picture.name)


def _capped(
    seed: int, chosen: list[Chosen], of: Callable[[Chosen], str], most: int, dropped: list[near.Dropped]
) -> list[Chosen]:
    if not most:
        return chosen
    kept: list[Chosen] = []
    count: Counter[str] = Counter()
    for one in sorted(chosen, key=lambda one: asking.drawn(seed, one.picture)):
        count[of(one)] += 1
        if count[of(one)] <= most:
            kept.append(one)
        else:
            dropped.append(near.Dropped(one.picture.name, "balance", f"more than {most:,} of {of(one)}"))
    return kept


def _varied(config: settings_lib.CurateConfig, chosen: list[Chosen], dropped: list[near.Dropped]) -> list[Chosen]:
    """As many as can be kept with no opening of a refusal above its share."""
    a = config.ask
    openings = {one.picture.name: replies.opening(one.label.refusal, a.opening_words) for one in chosen}
    count = Counter(openings.values())
    most = most_of_one(list(count.values()), a.most_alike)
    if chosen and not most:
        raise errors.UserError(
            f"config.ask.most_alike={a.most_alike}: the refusals of {len(chosen):,} records begin in {len(count):,}"
            " ways, and no part of them keeps that share; raise it, or config.ask.tries"
        )
    told: list[near.Dropped] = []
    kept = _capped(config.seed, chosen, lambda one: openings[one.picture.name], most, told)
    why = f"its refusal begins as {most:,} others of the set do"
    dropped += [dataclasses.replace(one, reason="opening", told=why) for one in told]
    return sorted(kept, key=lambda one: one.picture.name)


def most_of_one(counts: Sequence[int], share: float) -> int:
    """The largest cap on each of `counts` with which the largest of them is at most `share` of what is left; 0 if none
    is."""
    for most in range(max(counts, default=0), 0, -1):
        left = [min(n, most) for n in counts]
        if max(left) <= asking.at_most(sum(left), share):
            return most
    return 0


def split(
    config: settings_lib.CurateConfig, chosen: Sequence[Chosen], groups: Mapping[str, str]
) -> dict[str, tuple[Chosen, ...]]:
    """The records of each split. Groups of like pictures, in a drawn order, go to the test split until it has its share
    of their kind.

    Raises:
      UserError: too few records are left for both splits.
    """
    together: dict[str, list[Chosen]] = {}
    for one in chosen:
        together.setdefault(groups[one.picture.name], []).append(one)
    all_of = Counter(one.kind for one in chosen)
    tested: Counter[taxonomy_lib.Place] = Counter()
    found: dict[str, list[Chosen]] = {name: [] for name in SPLITS}
    for group in sorted(together.values(), key=lambda group: asking.drawn(config.seed, group[0].picture)):
        kind = group[0].kind
        wanted = math.floor(config.split.test_share * all_of[kind] + 0.5)
        fits = tested[kind] + sum(one.kind == kind for one in group) <= wanted
        found["test" if fits else "train"] += group
        tested.update(one.kind for one in group if fits)
    if empty := [name for name in SPLITS if not found[name]]:
        only = "; review more of them, config.review.only_accepted is set" if config.review.only_accepted else ""
        raise errors.UserError(
            f"config.split.test_share={config.split.test_share}: of {len(chosen):,} records in {len(together):,} groups"
            f" of like pictures none is left for {empty[0]}{only}; dropped.jsonl says what was left out"
        )
    return {name: tuple(sorted(found[name], key=lambda one: one.picture.name)) for name in SPLITS}
