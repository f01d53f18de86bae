"""What remote judges are expected to be asked, counted by hand."""

from __future__ import annotations

import dataclasses

import pytest

from vlguard_jax import config
from vlguard_jax import judge_settings
from vlguard_jax.endpoints import settings as endpoint_settings
from vlguard_jax.planning import judged
from vlguard_jax.safety.judges import remote
from vlguard_jax.safety.judges import rubrics

ENDPOINT = endpoint_settings.EndpointSettings(
    base_url="https://host/v1", model="j", input_price=10.0, output_price=40.0, picture_tokens=85, max_dollars=5.0
)


def settings(kind: judge_settings.Kind, **benchmark: object) -> config.EvalConfig:
    asked = config.BenchmarkSettings(**benchmark)  # type: ignore[arg-type]
    judges = {kind: judge_settings.RemoteJudge(kind=kind, endpoint=ENDPOINT)}
    return config.EvalConfig(benchmark=asked, judges=("keyword_vlguard_v1", kind), remote_judges=judges)


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        ("win_rate", 558),
        ("win_rate_swapped", 2 * 558),
        ("strongreject_rubric", 442 + 558),
        ("xstest_three_class", 1558),
    ],
)
def test_calls(kind: judge_settings.Kind, calls: int) -> None:
    asked = settings(kind)
    judge = remote.make(kind, asked.remote_judges[kind])
    found, dollars = judged.expected(asked, judge)
    prompt = len(rubrics.RUBRICS[kind].prompt) // 4 + 64 + 128
    if "win_rate" in kind:
        prompt += 128 + 85  # the reference and the picture
    reply = rubrics.RUBRICS[kind].max_tokens // 2
    assert found == calls and dollars == pytest.approx(calls * (prompt * 10 + reply * 40) / 1e6)


def test_the_note_says_where_the_budget_is_too_little() -> None:
    few, all_ = settings("win_rate", limit=10, subsets=("safe_safes",)), settings("win_rate_swapped")
    (note,) = judged.notes(few)
    assert note.startswith("judge win_rate: 10 calls of j, about $0.0") and note.endswith("10,000 calls and $5.00")
    (note,) = judged.notes(all_)
    assert note.endswith("$5.00, which is TOO LITTLE")
    assert judged.notes(dataclasses.replace(few, judges=("keyword_vlguard_v1",))) == ()
