"""Caps, shares and the split; the largest cap against trying all."""

from __future__ import annotations

from collections import Counter
import dataclasses
import hashlib
import itertools

import hypothesis
from hypothesis import strategies
import pytest

from vlguard_jax import errors
from vlguard_jax.curating import asking
from vlguard_jax.curating import decisions
from vlguard_jax.curating import replies
from vlguard_jax.curating import scan
from vlguard_jax.curating import selecting
from vlguard_jax.curating import settings
from vlguard_jax.curating import taxonomy

PLACES = taxonomy.read().places
CONFIG = settings.CurateConfig()


def outcome(i: int, subcategory: str = "", opening: str = "I decline.") -> asking.Outcome:
    digest = hashlib.sha256(str(i).encode()).hexdigest()
    seen = scan.Seen(digest, f"{i:04d}.png", digest, digest, 8, 8, "0" * 32, "")
    label = replies.Labelled(not subcategory, subcategory=subcategory or None, response=opening, unsafe_answer=opening)
    return asking.Outcome(seen, "English", label, ())


def reviewed(outcomes: list[asking.Outcome], **changes) -> decisions.Reviewed:
    labels = {one.picture.name: one.found for one in outcomes if isinstance(one.found, replies.Labelled)}
    return decisions.Reviewed(labels, **changes)


def choose(config: settings.CurateConfig, outcomes: list[asking.Outcome], **changes):
    return selecting.choose(
        config,
        outcomes,
        reviewed(outcomes, **changes),
        PLACES,
        only_accepted=config.review.only_accepted,
    )


@hypothesis.given(strategies.lists(strategies.integers(1, 30), min_size=1, max_size=8), strategies.integers(1, 100))
def test_the_largest_cap_that_keeps_a_share(counts: list[int], percent: int) -> None:
    def keeps(most: int) -> bool:
        left = [min(n, most) for n in counts]
        return 100 * max(left) <= percent * sum(left)

    best = max((most for most in range(1, max(counts) + 1) if keeps(most)), default=0)
    assert selecting.most_of_one(counts, percent / 100) == best


def test_caps_take_the_same_pictures_whatever_else_is_there() -> None:
    many = [outcome(i, "race" if i % 3 else "sex") for i in range(60)] + [outcome(100 + i) for i in range(40)]
    config = dataclasses.replace(CONFIG, balance=settings.BalanceSettings(5, 12, 9))
    chosen, dropped = choose(config, many)
    kinds = Counter(one.kind.subcategory for one in chosen)
    assert kinds == {"race": kinds["race"], "sex": kinds["sex"], "safe": 5} and kinds["race"] + kinds["sex"] == 12
    assert max(kinds["race"], kinds["sex"]) <= 9 and len(chosen) + len(dropped) == 100
    assert choose(config, many)[0] == chosen
    other = choose(dataclasses.replace(config, seed=1), many)[0]
    assert {one.picture.name for one in other} != {one.picture.name for one in chosen}


def test_openings_above_their_share_are_left_out() -> None:
    many = [outcome(i, "race", f"{'No' if i % 4 else 'Never' if i % 8 else 'Sorry'} I decline.") for i in range(40)]
    config = dataclasses.replace(CONFIG, ask=settings.AskSettings(most_alike=0.4, opening_words=1))
    chosen, dropped = choose(config, many)
    assert Counter(one.label.refusal.split()[0] for one in chosen) == {"No": 6, "Never": 5, "Sorry": 5}
    assert {one.reason for one in dropped} == {"opening"} and len(dropped) == 24


def test_people_come_first() -> None:
    many = [outcome(i) for i in range(4)]
    changes = {"rejected": frozenset({"0001.png"}), "accepted": frozenset({"0002.png"})}
    chosen, dropped = choose(CONFIG, many, **changes)
    assert [(one.picture.name, one.reviewed) for one in chosen] == [
        ("0000.png", False),
        ("0002.png", True),
        ("0003.png", False),
    ]
    assert [(one.name, one.reason) for one in dropped] == [("0001.png", "rejected by a person")]
    only = dataclasses.replace(CONFIG, review=settings.ReviewSettings(only_accepted=True))
    chosen, dropped = choose(only, many, **changes)
    assert [one.picture.name for one in chosen] == ["0002.png"]
    assert Counter(one.reason for one in dropped) == {"rejected by a person": 1, "not reviewed": 2}


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("share", [0.1, 0.333, 0.5])
def test_groups_stay_together_and_shares_hold(size: int, share: float) -> None:
    many = [outcome(i, ("race", "sex", "")[i // size % 3]) for i in range(300)]
    config = dataclasses.replace(CONFIG, split=settings.SplitSettings(share))
    chosen, _ = choose(config, many)
    groups = {one.picture.name: f"{int(one.picture.name[:4]) // size * size:04d}" for one in chosen}
    found = selecting.split(config, chosen, groups)
    sides = {split: {groups[one.picture.name] for one in part} for split, part in found.items()}
    assert not sides["train"] & sides["test"]
    names = [one.picture.name for one in itertools.chain(*found.values())]
    assert sorted(names) == sorted(groups) and len(names) == 300
    for kind in {one.kind for one in chosen}:
        n = sum(one.kind == kind for one in found["test"])
        assert abs(n - share * 100) <= size, kind


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_are_an_error(n: int) -> None:
    chosen, _ = choose(CONFIG, [outcome(i) for i in range(n)])
    with pytest.raises(errors.UserError, match=rf"of {n} records in {n} groups of like pictures none is left for t"):
        selecting.split(CONFIG, chosen, {one.picture.name: one.picture.name for one in chosen})
