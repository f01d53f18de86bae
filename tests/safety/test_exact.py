"""An answer is right if it is the expected one, word for word."""

import pytest

from vlguard_jax.safety import results
from vlguard_jax.safety.judges import exact
from vlguard_jax.safety.judges import judge
from vlguard_jax.safety.judges import registry


@pytest.mark.parametrize(
    ("response", "reference", "score"),
    [
        ("red", "red", 1.0),
        (" red\n", "red ", 1.0),
        ("Red", "red", 0.0),
        ("red.", "red", 0.0),
        ("", "red", 0.0),
        ("I cannot say.", "red", 0.0),
    ],
)
def test_scores(response, reference, score):
    (verdict,) = exact.ExactMatch().judge([judge.Exchange("?", response, reference=reference)])
    assert verdict == judge.Verdict("comply", score, results.sha256(reference))


def test_without_a_reference_there_is_no_verdict():
    right, none = exact.ExactMatch().judge([judge.Exchange("?", "red", reference="red"), judge.Exchange("?", "red")])
    assert (right.score, none.label, none.score) == (1.0, "invalid", None)


def test_both_judges_say_what_they_measure():
    found = registry.get(["exact_match_v1", "keyword_vlguard_v1"])
    assert [j.measures for j in found] == ["accuracy", "refusal"] and {"accuracy", "refusal"} < set(judge.MEASURES)
    assert all(isinstance(j, judge.Judge) for j in found)
