"""Foreign regular expressions: their meaning, and what they may cost."""

from __future__ import annotations

import time

import pytest

from vlguard_jax import errors
from vlguard_jax.checkpoints import patterns

NAME = "model.language_model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        (r".*\.q_proj", True),
        ("q_proj", False),
        (r"^(?!.*(?:vision_tower|multi_modal_projector)).*(?:q_proj|v_proj).*", True),
        (
            r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|k_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\..*)",
            True,
        ),
        (".*vision_tower.*", False),
    ],
)
def test_meaning(pattern: str, fits: bool) -> None:
    assert patterns.compiled(pattern, "x", patterns.Budget())(NAME) is fits


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "x: '\\(' is not a regular expression"),
        ("(?R)", "is not a regular expression"),
        ("((((a{100}){100}){100}){100})", "repeats its parts 100,000,000 times"),
        ("a{99999999999999999999}", "repeats its parts"),
        ("a" * 70_000, "a pattern of 70,000 characters"),
        ("(" * 5000 + ")" * 5000, "is not a regular expression"),
    ],
)
def test_refused(pattern: str, message: str) -> None:
    with pytest.raises(errors.UserError, match=message) as error:
        patterns.compiled(pattern, "x", patterns.Budget())
    assert len(str(error.value)) < 400


def test_time_is_bounded_over_all_patterns() -> None:
    budget = patterns.Budget(0.02)  # far less than they take
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(errors.UserError, match="takes too long to match; write it without nested repetitions"):
            for i in range(1000):
                patterns.compiled(rf"(?:(.)(?=.*\1)|.|..)*{i}x", "x", budget)("ab" * 1000)
    assert time.monotonic() - started < 30
