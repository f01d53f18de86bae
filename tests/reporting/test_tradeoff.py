"""Harm and help of each model, and the sentence made from them."""

from __future__ import annotations

import pytest

from tests.reporting import test_grid
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import tradeoff


def rate(value, half=0.02):
    return {"rate": value, "ci_low": max(0.0, value - half), "ci_high": min(1.0, value + half)}


def model(name, unsafe, mixed, refused, right=None):
    rows = [
        test_grid.row(model=name, **rate(unsafe)),
        test_grid.row(model=name, subset="safe_unsafes", **rate(mixed)),
        test_grid.row(model=name, subset="safe_safes", metric="refusal_rate", **rate(refused)),
    ]
    if right is not None:
        rows.append(test_grid.row(model=name, subset="safe_safes", metric="accuracy", judge="exact", **rate(right)))
    return test_grid.evaluation(*rows)


def test_mean_adds_distances_in_squares():
    one = tradeoff.Rate(0.5, 0.4, 0.7)
    found = tradeoff.mean([one, one])
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - 0.1 / 2**0.5, 0.5 + 0.2 / 2**0.5))
    alone = tradeoff.mean([one])
    assert (alone.value, alone.low, alone.high) == pytest.approx((0.5, 0.4, 0.7))


def test_harm_is_the_unweighted_mean_of_the_picture_subsets():
    text = test_grid.row(model="a", benchmark="prompts", subset="text_unsafe", **test_grid.TEXT, **rate(0.9))
    white = test_grid.row(model="a", image_mode="white", **rate(0.7))
    found = tradeoff.find(grid.arrange([model("a", 1.0, 0.5, 0.1), test_grid.evaluation(text, white)]))
    (point,) = found.points
    assert point.harm.value == 0.75 and found.subsets == ("unsafe picture", "safe picture, unsafe request")
    assert (point.help.value, point.help.low, point.help.high) == pytest.approx(
        (0.9, 0.88, 0.92)
    ) and found.helped == "not refused"


def test_help_is_accuracy_where_all_have_it():
    both = tradeoff.find(grid.arrange([model("a", 1.0, 1.0, 0.1, 0.8), model("b", 0.0, 0.0, 0.2, 0.7)]))
    assert both.helped == "answered right" and [p.help.value for p in both.points] == [0.8, 0.7]
    mixed = tradeoff.find(grid.arrange([model("a", 1.0, 1.0, 0.1, 0.8), model("b", 0.0, 0.0, 0.2)]))
    assert mixed.helped == "not refused" and [p.help.value for p in mixed.points] == pytest.approx([0.9, 0.8])


def test_right_choices_are_no_help_with_harmless_questions():
    choices = test_grid.row(
        model="a", benchmark="siuo_mcq", subset="siuo_mcq", metric="accuracy", judge="choice_v1", **rate(0.3)
    )
    found = grid.arrange([test_grid.evaluation(choices), model("a", 1.0, 1.0, 0.1)])
    assert tradeoff.find(found).helped == "not refused"
    assert found.columns[-1].group == grid.CHOICES and "harmless" not in grid.CHOICES.title + grid.CHOICES.meaning
    alone = grid.arrange([test_grid.evaluation(choices, test_grid.row(model="a", **rate(1.0)))])
    assert tradeoff.find(alone) is None


def test_models_without_pictures_are_absent():
    text = test_grid.row(model="llm", benchmark="prompts", subset="text_unsafe", **test_grid.TEXT)
    found = tradeoff.find(grid.arrange([test_grid.evaluation(text), model("a", 1.0, 1.0, 0.1)]))
    assert [p.label for p in found.points] == ["a"] and found.absent == ("llm",)


def test_sentence_names_the_least_safe_and_the_best_balance():
    mute, good = model("mute", 0.0, 0.0, 1.0), model("good", 0.02, 0.02, 0.01)
    words = tradeoff.sentence(grid.arrange([model("bad", 0.9, 1.0, 0.0), mute, good])).replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert (
        "bad (the least safe) answered 95.0 % (93.6 to 96.0)" in words
        and "good (the best balance of safety and help) 2.0 % (0.6 to 3.4)" in words
    )
    assert "100.0 % (98.0 to 100.0) and 99.0 % (97.0 to 100.0) were not refused" in words
    assert (
        "mute, which refused 100.0 % (98.0 to 100.0) of the harmless questions (safe picture, safe question)" in words
    )


def test_sentence_without_harmless_questions():
    def words(*evaluations):
        return tradeoff.sentence(grid.arrange(evaluations)).replace("\N{NO-BREAK SPACE}", " ")

    bad = test_grid.evaluation(test_grid.row(model="bad", **rate(0.9)))
    good = test_grid.evaluation(test_grid.row(model="good", **rate(0.1)))
    assert words(bad, good) == "bad answered 90.0 % (88.0 to 92.0) of the harmful requests, good 10.0 % (8.0 to 12.0)."
    assert words(bad) == "bad answered 90.0 % (88.0 to 92.0) of the harmful requests."
    assert "nothing can be said" in words(
        test_grid.evaluation(test_grid.row(subset="safe_safes", metric="refusal_rate"))
    )


def test_sentence_says_where_rates_are_of_a_part_or_of_stand_ins():
    part = test_grid.evaluation(test_grid.row(model="bad", first_n=442, stand_in=True, **rate(0.9)))
    assert tradeoff.sentence(grid.arrange([part])).endswith(
        " of the harmful requests. Some of the rates below are not of a whole benchmark: first 442 only, STAND-IN."
    )
