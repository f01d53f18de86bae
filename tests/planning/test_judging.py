"""Judges in the plan of an evaluation: memory and time, by hand."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich import console as rich_console

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import judge_settings
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import run
from vlguard_jax.planning import show

GIB = 2**30
JUDGES = {
    "llama_guard_1": judge_settings.LocalJudge(kind="llama_guard_1", path="meta-llama/LlamaGuard-7b"),
    "harmbench": judge_settings.LocalJudge(kind="harmbench", path="cais/HarmBench-Llama-2-13b-cls"),
}
ASKED = config.EvalConfig(
    model=config.ModelSettings(path="ys-zong/llava-v1.5-7b-Mixed"),
    benchmark=config.BenchmarkSettings(name="vlguard", subsets=("unsafes", "safe_safes")),
    local_judges=JUDGES,
)


def made(topology: str, *judges: str, settings: config.EvalConfig = ASKED) -> estimate.Estimate:
    settings = dataclasses.replace(settings, judges=("keyword_vlguard_v1", *judges))
    return run.planner(settings)(settings, chips.parse(topology))


def test_a_judge_takes_memory_and_time_after_the_answers() -> None:
    alone, judged = made("v6e:1x1"), made("v6e:1x1", "llama_guard_1")
    found = judged.judges["llama_guard_1"]
    # Llama 2 7B: 6,738,415,616 parameters of two bytes; 16 slots of 1,024 + 100 places at half a MiB
    assert found["weights_gib"] == pytest.approx(6738415616 * 2 / GIB, abs=0.01)
    least = found["weights_gib"] + 16 * (1024 + 100) / 2048
    assert least < found["peak_gib"] < least + 2
    assert judged.per_chip["judge_gib"] == found["peak_gib"] and judged.fits
    assert judged.per_chip["peak_gib"] == max(alone.per_chip["peak_gib"], found["peak_gib"])
    assert judged.per_chip["weights_gib"] == alone.per_chip["weights_gib"]
    spent = judged.hours["judge"]
    assert spent > 0 and judged.hours["total"] == pytest.approx(alone.hours["total"] + spent)
    assert judged.answers.hours["total"] == pytest.approx(alone.answers.hours["total"] + spent)
    price = judged.price.dollars
    assert judged.dollars == pytest.approx(price * judged.hours["total"])
    assert judged.answers.dollars == pytest.approx(price * judged.answers.hours["total"])
    # only answers to unsafe requests are read for harm
    assert any("442 prompts of 1,024 tokens (assumed)" in note for note in judged.notes)
    assert judged.as_json()["judges"] == {"llama_guard_1": dict(found)} and "judges" not in alone.as_json()
    out = io.StringIO()
    show.plan(judged, rich_console.Console(file=out, width=200))
    assert "GiB while a judge reads" in out.getvalue() and "judge llama_guard_1: LlamaGuard-7b" in out.getvalue()


def test_a_judge_that_does_not_fit() -> None:
    """13B in bf16 takes 24.2 GiB, and the cache of 16 prompts of 1,024 tokens 12.5: more than a v6e has."""
    both = made("h100:1", "llama_guard_1", "harmbench")
    assert both.fits and both.judges["harmbench"]["weights_gib"] == pytest.approx(13015864320 * 2 / GIB, abs=0.01)
    refused = made("v6e:1x1", "harmbench")
    assert not refused.fits and made("v6e:1x1").fits
    assert any("which does NOT FIT" in note for note in refused.notes)


def test_a_judge_that_reads_nothing_takes_nothing() -> None:
    safe = dataclasses.replace(ASKED, benchmark=config.BenchmarkSettings(name="vlguard", subsets=("safe_safes",)))
    assert made("v6e:1x1", "llama_guard_1", settings=safe).judges == {}


def test_a_judge_without_a_size() -> None:
    unknown = {"mine": judge_settings.LocalJudge(kind="llama_guard_3", path="me/guard")}
    with pytest.raises(
        errors.UserError, match=r"config\.local_judges\.mine: me/guard: not a folder here, and its name"
    ):
        made("v6e:1x1", "mine", settings=dataclasses.replace(ASKED, local_judges=unknown))
