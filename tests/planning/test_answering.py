"""Slots that fit and the time of answers: by hand, by simulation, and by the engine's own check."""

from __future__ import annotations

import dataclasses
import heapq
import random

import jax
import pytest

from tests.families import tiny
from tests.generation import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.generation import lengths
from vlguard_jax.generation import memory as engine_memory
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.planning import answering
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import evaluation
from vlguard_jax.planning import flops
from vlguard_jax.planning import run
from vlguard_jax.planning import traffic

GIB = 2**30
SEVEN, THIRTEEN = table.PRESETS["llava-v1.5-7b"], table.PRESETS["llava-v1.5-13b"]
SLOT = (768 + 256) * 0.5 / 1024  # GiB of cache: room for a prompt of 640 + 64 tokens, and its answer
KEPT = (2 * 640 * 0.5 + 0.1 * 1024) / 1024  # GiB: of one, nine tenths hold two prefixes of 640 tokens, a tenth features
FIT = {"v6e:1x1": 28, "v5e:2x2": 72, "h100:1": 101}
EVALUATION = config.EvalConfig(model=config.ModelSettings(path="ys-zong/llava-v1.5-7b-Mixed"))


def made(topology: str, settings: config.EvalConfig = EVALUATION, **decode) -> estimate.Estimate:
    settings = dataclasses.replace(settings, decode=dataclasses.replace(settings.decode, **decode))
    return run.planner(settings)(settings, chips.parse(topology))


def test_bytes_of_the_cache():
    """7B: 32 layers, 32 heads of 128, keys and values, two bytes: half a MiB a token, 388 MB for 740 tokens."""
    assert engine_memory.of_token(SEVEN.text, 2, 1) == 2 * 32 * 32 * 128 * 2 == 2**19
    assert 740 * engine_memory.of_token(SEVEN.text, 2, 1) == pytest.approx(388e6, rel=1e-3)
    assert engine_memory.of_token(SEVEN.text, 2, 4) == 2**17
    # one byte, and a scale of four for each head
    assert engine_memory.of_token(SEVEN.text, 1, 2) == 2 * 32 * 32 * (128 + 4) // 2
    assert engine_memory.of_token(THIRTEEN.text, 2, 1) == pytest.approx(0.78 * 2**20, rel=2e-3)  # 40 layers, 40 heads
    grouped = table.PRESETS["llava-v1.6-mistral-7b"].text  # 8 heads of keys and values
    assert engine_memory.of_token(grouped, 2, 1) == 2**17


def test_slots_that_fit_7b():
    """A slot takes SLOT GiB. v6e: nine tenths of 31.25 GiB, less 13.16 of weights, are 14.97; H200: 112.5 - 13.16."""
    assert made("v6e:1x1").answers.slots_fit == int((0.9 * 31.25 - 13.16 - KEPT) / SLOT) == FIT["v6e:1x1"]
    assert made("h200:1").answers.slots_fit == int((112.5 - 13.16 - KEPT) / SLOT)
    # answers half as long take 128 tokens less, 64 MiB
    assert made("v6e:1x1", max_new_tokens=128).answers.slots_fit == int((14.97 - KEPT) / (SLOT - 0.0625))


@pytest.mark.parametrize(("topology", "most"), FIT.items())
def test_a_plan_fits_with_the_slots_that_it_names_and_no_more(topology, most):
    """Over four v5e: what a prefill needs, a gathered layer among it, is more than a tenth."""
    shards = made(topology).mesh.row_shards
    assert made(topology).answers.slots_fit == most and most % shards == 0
    fitting, beyond = made(topology, batch_size=most), made(topology, batch_size=most + 1)
    assert fitting.fits and fitting.answers.slots_fit == most and not beyond.fits
    assert fitting.per_chip["peak_gib"] <= fitting.topology.chip.usable_gib


def test_the_engine_takes_what_the_plan_says_and_no_more(monkeypatch):
    """One number of slots in the plan and in the check before the first prompt, of a model of 2 layers in fp32."""
    model = functional.Model(tiny.CONFIG, "fp32", None)
    mesh = mesh_lib.build(config.MeshSettings(data=1, fsdp=1, tensor=1), jax.devices()[:1])
    sizes = flops.sizes(tiny.CONFIG)
    weights, length = 4 * (sizes.text + sizes.projector + sizes.tower), 134
    for room in (0.2, 3.5, 17.1):
        cache = room * 2 * 2 * 2 * 8 * 4 * length
        usable = (weights + cache) / 0.9
        chip = dataclasses.replace(chips.known()["v5e"], usable_gib=usable / GIB)
        one = engine_memory.of_token(tiny.CONFIG.text, 4, 1) * length
        kinds = {"weights_gib": weights / GIB, "cache_gib": one / GIB, "peak_gib": (weights + one) / GIB}
        fit = answering.slots_fit(chips.Topology(chip, (1, 1)), traffic.Mesh(1, 1, 1), one, 1, [kinds])
        assert fit == int(room)
        monkeypatch.setattr(engine_memory, "limit", lambda mesh, usable=usable: int(usable) + 1)
        if fit:
            engine_memory.check(model, mesh, stand.PARAMS, fit, length, 0, 4)
        with pytest.raises(errors.UserError, match=r"config\.decode\.batch_size"):
            engine_memory.check(model, mesh, stand.PARAMS, fit + 1, length, 0, 4)


def test_what_the_compiler_reserved_counts():
    """Of 9 GiB of cache 16 slots take 8: one stays. Programs take one GiB, less than a tenth of the chip, or five."""
    topology, gib = chips.parse("v6e:1x1"), float(GIB)
    kinds = {"weights": 13 * gib, "cache": (16 * SLOT + 1) * gib}
    lean = estimate.Measured({"peak": sum(kinds.values()) + gib, **kinds}, None, None, 1.0, "compiled")
    large = dataclasses.replace(lean, kinds={"peak": sum(kinds.values()) + 5 * gib, **kinds})
    found = evaluation.evaluate(EVALUATION, SEVEN, topology, measured=(lean, lean)).answers
    assert found.slots_fit == int((0.9 * 31.25 - 13 - 1) / SLOT)
    found = evaluation.evaluate(EVALUATION, SEVEN, topology, measured=(large, lean)).answers
    assert found.slots_fit == int((31.25 - 5 - 13 - 1) / SLOT)


def test_steps_by_hand():
    assert answering.steps(100, 10, 20, 20) == 200  # ten rounds of equal answers
    assert answering.steps(5, 1, 10, 30) == 4 * 10 + 30  # one slot: four mean ones, and the longest at the end
    assert answering.steps(3, 16, 10, 30) == 30 and answering.steps(16, 16, 10, 30) == 30


@pytest.mark.parametrize(("slots", "share"), [(16, 0.4), (64, 0.4), (16, 0.1)])
def test_steps_of_simulated_slots(slots, share):
    """1,558 answers, `share` of them of 256 tokens, the others of 20: slots take them in order, as they become free."""
    draw = random.Random(1)
    answers = [256 if draw.random() < share else 20 for _ in range(1558)]
    free = [0] * slots
    for length in answers:
        heapq.heappush(free, heapq.heappop(free) + length)
    expected = answering.steps(len(answers), slots, sum(answers) / len(answers), 256)
    assert expected == pytest.approx(max(free), rel=0.05)
    assert sum(answers) / slots <= max(free) <= sum(answers) / slots + 256  # Graham


def test_expected_and_worst_case():
    """16 slots of v6e: (1,558 - 16) / 16 * 128 + 256 = 12,592 steps of 19.3 ms, 25,088 at worst, 0.0207 s a prompt."""
    found = made("v6e:1x1", dataclasses.replace(EVALUATION))
    answers, time = found.answers, found.step_seconds
    assert (answers.new, answers.steps, found.steps) == (128, 12592, 25088)
    # 13.5 GB of weights and 16 slots, at 70 % of 1,638 GB/s
    assert time["decode"] == pytest.approx((13.5e9 + 16 * SLOT * GIB) / (0.7 * 1638e9), rel=0.01)
    busy = 1558 * time["prefill"] + 12592 * time["decode"]
    assert answers.answers_per_second == pytest.approx(1558 / busy) and 1558 / busy == pytest.approx(5.67, abs=0.05)
    assert answers.tokens_per_second == pytest.approx(128 * 1558 / busy)
    assert answers.hours["steps"] == pytest.approx(busy / 3600) and answers.hours["total"] < found.hours["total"]
    assert answers.dollars == pytest.approx(2.7 * answers.hours["total"]) and answers.dollars < found.dollars


def test_weights_stay_on_their_chips_for_a_token():
    """v5e:2x2: each chip reads its quarter of 13.5 GB and 4 slots; 16 rows of sums go over the links, 67 MB. A program
    that gathers the weights, 9.9 GB, takes longer than the links need at least."""
    topology, quarter = chips.parse("v5e:2x2"), (13.5e9 / 4 + 4 * SLOT * GIB) / (0.7 * 819e9)
    assert made("v5e:2x2").step_seconds["decode"] == pytest.approx(quarter, rel=0.01)
    outputs = 32 * (3 * 4096 + 4096 + 2 * 11008 + 4096) + 32000
    sums = 2 * 0.75 * 16 * outputs * 2
    assert 66e6 < sums < 67e6  # compiled for v5e:2x2: all-gather 0.00, all-reduce 0.06 GB
    for links, least, most in ((sums, quarter, quarter), (9.9e9, 9.9e9 / 90e9, 0.2)):
        one = estimate.Measured({"peak": float(GIB)}, links, None, 1.0, "compiled")
        found = evaluation.evaluate(EVALUATION, SEVEN, topology, measured=(one, one)).step_seconds["decode"]
        assert 0.99 * least <= found <= 1.01 * most


def test_a_mean_answer_is_within_the_limits():
    decode = config.DecodeSettings()
    assert answering.mean(decode) == 128
    assert answering.mean(dataclasses.replace(decode, max_new_tokens=40)) == 40
    assert answering.mean(dataclasses.replace(decode, min_new_tokens=200)) == 200
    shortest = made("v6e:1x1", max_new_tokens=40)
    assert shortest.answers.hours["total"] == pytest.approx(shortest.hours["total"], rel=0.01)  # rounds are whole there


def test_json():
    found = made("v6e:1x1").as_json()
    assert list(found)[-4:] == ["slots_fit", "answers_per_second", "tokens_per_second", "expected"]
    assert found["expected"].keys() == {"new", "steps", "hours", "dollars"} and found["slots_fit"] == FIT["v6e:1x1"]


@pytest.mark.parametrize("prompt", [64, 640, 1024, 1088, 2432, 2944, 9000])
@pytest.mark.parametrize("each", [1, 3, 10, 57])
def test_the_setting_that_fills_the_slots(prompt, each):
    """Long prompts get a half, a quarter ... of batch_size."""
    found = answering.fuller(config.DecodeSettings(), each * 4 + 3, prompt, 4).batch_size
    assert lengths.slots(found // 4, prompt) == each and found % (4 * each) == 0


def test_more_slots_are_offered_where_they_fit():
    found = run.planner(EVALUATION)(EVALUATION, chips.parse("v6e:1x1")).answers
    decode, speed = found.fuller
    full = made("v6e:1x1", batch_size=FIT["v6e:1x1"]).answers
    assert decode.batch_size == FIT["v6e:1x1"] and speed == full.answers_per_second > found.answers_per_second
    assert full.fuller is None
    one = config.BenchmarkSettings(name="prompts", subsets=("text_unsafe",), limit=20)
    few = dataclasses.replace(EVALUATION, benchmark=one)
    assert made("v6e:1x1", few).answers.fuller[0].batch_size == 20
    assert made("v6e:1x1", batch_size=48).answers.fuller is None


@pytest.mark.parametrize(
    ("settings", "prompts", "pictured"),
    [
        ({}, 442 + 558 + 558, True),
        ({"name": "vlguard_leak_free", "limit": 500}, 438 + 500 + 500, True),
        ({"name": "advbench"}, 3 * 520, False),
        ({"name": "xstest", "subsets": ("xstest_safe",)}, 250, False),
        ({"name": "figstep", "limit": 10}, 10, True),
        ({"name": "figstep", "pictures": "none"}, 500, False),
        ({"name": "prompts", "limit": 7}, 21, False),
    ],
)
def test_prompts_are_those_of_the_benchmark(settings, prompts, pictured):
    asking = dataclasses.replace(EVALUATION, benchmark=config.BenchmarkSettings(**settings))
    found = evaluation.asked(asking, table.PRESETS["llava-v1.5-7b"], chips.parse("v6e:1x1"))
    assert (found.prompts, found.prefix > 0) == (prompts, pictured)
