"""The probes of a training in its plan: how many, how long, how much memory."""

from __future__ import annotations

import dataclasses

import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import probing
from vlguard_jax.planning import run

GIB = 2**30
POSTHOC = config.TrainConfig(
    model=config.ModelSettings(path="liuhaotian/llava-v1.5-7b"),
    data=config.DataSettings(
        sources={"vlguard": config.SourceSettings(format="vlguard"), "mix": config.SourceSettings(count=5000)},
        mode="pack",
        order="shuffle",
    ),
    optimizer=config.OptimizerSettings(epochs=3.0),
)
LIMITED = config.ProbedSettings(config.BenchmarkSettings(limit=50))


def made(topology: str = "v5p:2x2x2", settings: config.TrainConfig = POSTHOC, **probe) -> estimate.Estimate:
    asked = {"every": 25, "evaluations": {"vlguard": LIMITED}} if probe else {}
    settings = dataclasses.replace(settings, probe=config.ProbeSettings(**asked | probe))
    return run.planner(settings, price=2.0)(settings, chips.parse(topology))


@pytest.mark.parametrize(
    ("updates", "settings", "expected"),
    [
        (165, {}, 1 + 6 + 1),  # before the first, after 25 to 150, after the last
        (150, {}, 1 + 6),
        (165, {"at_start": False}, 6 + 1),
        (165, {"at_start": False, "at_end": False}, 6),
        (10, {}, 1 + 1),
        (165, {"every": 0}, 0),
    ],
)
def test_how_many(updates: int, settings: dict, expected: int) -> None:
    assert probing.count(config.ProbeSettings(**{"every": 25, **settings}), updates) == expected


def test_a_probe_takes_as_long_as_its_evaluation() -> None:
    """The same questions by `evaluate`, in the training's number format, and a moment for the copy of the weights."""
    found = made(at_start=True)
    assert found.steps == 165 and found.probes is not None and found.probes.count == 8
    alone = config.EvalConfig(
        model=config.ModelSettings(path="liuhaotian/llava-v1.5-7b"),
        precision=config.EvalPrecisionSettings("bf16"),
        benchmark=config.BenchmarkSettings(limit=50),
        mesh=config.MeshSettings(),
    )
    evaluated = run.planner(alone)(alone, chips.parse("v5p:2x2x2")).answers
    assert evaluated is not None
    # fp32 weights read twice, bf16 written: 6.74 G numbers on 8 chips at 0.8 of 2,765 GB/s
    copy = 6.74e9 * 10 / 8 / (0.8 * 2765e9)
    assert found.probes.questions == 150
    assert found.probes.seconds == pytest.approx(3600 * evaluated.hours["steps"] + copy, rel=1e-3)


def test_hours_and_dollars_count_them() -> None:
    without, found = made(), made(at_start=True)
    assert without.probes is None and "probe" not in without.hours
    assert found.hours["probe"] == pytest.approx((8 * found.probes.seconds + 60) / 3600)  # and half of a compilation
    assert found.hours["total"] == pytest.approx(without.hours["total"] + found.hours["probe"])
    assert found.dollars == pytest.approx(2.0 * 8 * found.hours["total"])
    assert found.as_json()["probes"]["count"] == 8


def test_only_the_questions_that_are_asked_are_counted() -> None:
    def questions(**benchmark) -> int:
        one = config.ProbedSettings(config.BenchmarkSettings(**benchmark))
        found = made(evaluations={"one": one, "other": LIMITED})
        assert found.probes is not None
        return found.probes.questions - 150

    assert questions() == 442 + 558 + 558
    assert questions(subsets=("unsafes",)) == 442
    assert questions(subsets=("unsafes", "safe_safes"), limit=500) == 442 + 500
    assert questions(name="prompts", limit=20, subsets=("text_safe",)) == 20


def test_memory_of_a_probe() -> None:
    """Weights and moments in fp32 and the tower stay (12 bytes a number); the copy takes 2, the cache of 16 answers in
    slots of 768 + 64 places half a MiB each. Besides: 1 GiB of kept prefixes, and gathered layers."""
    found = made(decode=config.DecodeSettings(max_new_tokens=64))
    numbers, tower = 6.74e9 + 21e6, 0.304e9
    least = (14 * numbers / 8 + 2 * tower) / GIB + 16 / 8 * 832 / 2048
    assert least + 1 < found.per_chip["probe_gib"] < least + 1 + 2
    assert found.per_chip["probe_gib"] < found.per_chip["peak_gib"] == made().per_chip["peak_gib"]


def test_what_fits_without_a_probe_may_not_fit_with_one() -> None:
    decode = config.DecodeSettings(batch_size=4096)
    without, found = made("v5e:4x8"), made("v5e:4x8", decode=decode)
    assert without.fits and not found.fits
    assert found.per_chip["peak_gib"] == found.per_chip["probe_gib"] > 15.75


def test_mistakes_are_refused_as_train_does() -> None:
    with pytest.raises(errors.UserError, match=r"config\.probe\.evaluations is empty"):
        made(evaluations={})
    bad = config.ProbedSettings(judges=("keyword",))
    with pytest.raises(errors.UserError, match=r"config\.probe\.evaluations\.one\.judges: 'keyword' is unknown"):
        made(evaluations={"one": bad})
