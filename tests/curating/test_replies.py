"""Which replies are taken, and what is said of the others; word counts by hand."""

from __future__ import annotations

import json

import jsonschema
import pytest

from tests.curating import world
from vlguard_jax.curating import prompt
from vlguard_jax.curating import replies
from vlguard_jax.curating import settings
from vlguard_jax.curating import taxonomy

ASK = settings.AskSettings()
RULES = replies.Rules(taxonomy.read(), ASK)
SAFE, UNSAFE = 4, 2  # drawings


def rules(**changes) -> replies.Rules:
    return replies.Rules(taxonomy.read(), settings.AskSettings(**changes))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(RULES.schema)
    assert RULES.schema["required"] == list(replies.KEYS) and len(replies.KEYS) == 11


@pytest.mark.parametrize("seed", [SAFE, UNSAFE])
@pytest.mark.parametrize("form", ["{}", "```json\n{}\n```", "\n ```\n{}\n```\n"])
def test_good_replies_are_read(seed: int, form: str) -> None:
    value = world.reply(seed)
    found = RULES.read(form.replace("{}", json.dumps(value)))
    assert isinstance(found, replies.Labelled) and vars(found) == value
    assert found.safe == (seed == SAFE)


def test_empty_texts_stand_for_null() -> None:
    value = {key: "" if one is None else one for key, one in world.reply(SAFE).items()}
    assert RULES.check(value) == RULES.check(world.reply(SAFE))


@pytest.mark.parametrize("name", world.FAULTS)
@pytest.mark.parametrize("seed", [SAFE, UNSAFE])
def test_every_planted_fault_has_its_reason(name: str, seed: int) -> None:
    reason, say = world.FAULTS[name]
    found = RULES.read(say(seed))
    assert isinstance(found, replies.Fault) and found.reason == reason
    assert found.told.endswith((".", "JSON.")) and "\n" not in found.told


@pytest.mark.parametrize(
    ("category", "subcategory", "good"),
    [
        ("privacy", "personal data", True),
        ("privacy", "facial recognition", True),
        ("privacy", "race", False),
        ("discrimination", "race", True),
        ("discrimination", "privacy", False),
        ("Privacy", "personal data", False),
    ],
)
def test_a_subcategory_belongs_to_its_category(category: str, subcategory: str, good: bool) -> None:
    value = world.reply(UNSAFE) | {"category": category, "subcategory": subcategory}
    assert isinstance(RULES.check(value), replies.Labelled) == good


def test_a_reply_that_was_cut_is_told_so() -> None:
    text = json.dumps(world.reply(SAFE))[:300]
    assert RULES.read(text, cut=True) == replies.Fault("cut", "The reply was cut before its end: write less.")


def test_length_and_wording_of_refusals_are_settings() -> None:
    short = world.reply(UNSAFE) | {"response": "No, dear reader, this I keep to myself."}
    assert RULES.check(short) == replies.Fault("length", '"response" has 8 words; write 100 to 200 words.')
    assert rules(refusals="short").check(short).reason == "no refusal"
    assert isinstance(rules(refusals="short", check_refusals=False).check(short), replies.Labelled)
    assert isinstance(rules(refusals="short").check(short, "French"), replies.Labelled)
    assert isinstance(RULES.check(short, style=False), replies.Labelled)


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 0),
        ("I'm sorry, but no.", 4),
        ("a well-known co-op; 3.5 kg", 6),
        ("\u0645\u0631\u062d\u0628\u0627 \u0628\u0643", 2),
        ("\u5bf9\u4e0d\u8d77\uff0c\u4e0d\u884c", 3),
    ],
)
def test_words(text: str, n: int) -> None:
    assert replies.words(text) == n


def test_openings_are_alike_whatever_the_apostrophe_and_case() -> None:
    texts = ("I\u2019m sorry, but", "I'M SORRY. No", "i'm  sorry")
    assert {replies.opening(text, 2) for text in texts} == {"i'm sorry"}


def test_the_prompt_names_all_keys_and_categories_and_the_number_of_tries() -> None:
    made = prompt.make(ASK, RULES.taxonomy)
    text = made.text("Danish")
    assert all(f'"{key}"' in text for key in replies.KEYS)
    assert all(f'"{node.name}"' in text for node in RULES.taxonomy.nodes)
    assert "in 100 to 200 words" in text and "answers in Danish" in text and "$" not in text
    fault = replies.Fault("empty", "The reply was empty.")
    assert len({text, made.text("Danish", fault, 1), made.text("Danish", fault, 2)}) == 3
