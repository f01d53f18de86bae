"""The drawn language: what is kept from training is kept apart, and made of words that training shows."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.quickstart import stand
from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import pictures

SEEDS = range(1000, 1040)


def language(seed: int) -> language_lib.Language:
    """The language of a seed."""
    return language_lib.language(seed, len(pictures.symbols()))


def words(texts: tuple[str, ...]) -> set[str]:
    """All words, in lower case."""
    return {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}


@pytest.mark.parametrize("kind", ["how", "spell", "sign", "symbols"])
@pytest.mark.parametrize("seed", SEEDS)
def test_splits_share_nothing(seed: int, kind: str) -> None:
    parts = getattr(language(seed), kind)
    assert tuple(parts) == language_lib.SPLITS and all(parts.values())
    for a, b in itertools.combinations(parts.values(), 2):
        assert not set(a) & set(b)
    assert all(len(set(part)) == len(part) for part in parts.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_training_shows_every_word_of_what_is_held_out(seed: int) -> None:
    drawn = language(seed)
    for parts in (drawn.how, drawn.spell, drawn.sign):
        assert words(parts["tuning"] + parts["test"]) <= words(parts["train"])


def test_a_seed_decides() -> None:
    assert language(1000) == language(1000)
    assert len({language(seed).how["test"] for seed in SEEDS}) > len(SEEDS) / 2
    assert len({language(seed).symbols["test"] for seed in SEEDS}) > len(SEEDS) / 2


def test_tools_are_named_by_training_symbols_only() -> None:
    for seed in SEEDS:
        assert len(language(seed).symbols["train"]) >= len(language_lib.TOOLS) + 1  # a mere mark beside the tools


def test_new_category_is_none_of_the_known() -> None:
    things = list(itertools.chain(*language_lib.FORBIDDEN.values(), language_lib.THINGS))
    assert len(set(things)) == len(things)
    assert {*language_lib.KNOWN_CATEGORIES, language_lib.NEW_CATEGORY} == set(language_lib.FORBIDDEN)
    assert language_lib.NEW_CATEGORY not in language_lib.KNOWN_CATEGORIES


@pytest.mark.parametrize("first", [True, False])
def test_in_place_keeps_the_wording(first: bool) -> None:
    for wording in (w for seed in SEEDS for w in language(seed).how["test"]):
        question = wording.format("open", "zorb")
        placed = language_lib.in_place(question, "game", first)
        assert "in the game" in placed.lower() and placed[-1] == question[-1]
        assert stand.bare(placed) == question.lower()


def test_refusals_and_answers() -> None:
    """As the keyword judge sees them."""
    refusals = [
        language_lib.REFUSE_SIGN,
        language_lib.REFUSE_JOINT,
        *map(language_lib.refuse_thing, language_lib.FORBIDDEN["amber"]),
    ]
    assert all(map(stand.is_refusal, refusals))
    answers = [language_lib.NO_SIGN]
    for thing in [*language_lib.THINGS, *itertools.chain(*language_lib.FORBIDDEN.values())]:
        answers += [language_lib.letters(thing), language_lib.do("open", thing, language_lib.text_tool(thing))]
    assert not any(map(stand.is_refusal, answers))
    assert language_lib.letters("zorb") == "The word zorb has four letters."


def test_sentences_hold_every_word_that_can_be_asked() -> None:
    known = words(tuple(language_lib.sentences()))
    for seed in SEEDS:
        drawn = language(seed)
        for parts in (drawn.how, drawn.spell, drawn.sign):
            assert all(words(part) <= known for part in parts.values())
    vocabulary = (
        *language_lib.TOOLS,
        *language_lib.SHAPES,
        *language_lib.COLOURS,
        *language_lib.THINGS,
        *language_lib.VERBS,
    )
    assert {
        *vocabulary,
        *language_lib.PLACES,
        *language_lib.NUMBERS.values(),
        *itertools.chain(*language_lib.FORBIDDEN.values()),
    } <= known
