"""Whole plans: what they must say of well-known cases, and what changes them."""

from __future__ import annotations

import dataclasses
import math

import pytest
from rich import console

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import table
from vlguard_jax.planning import advice
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import memory
from vlguard_jax.planning import models
from vlguard_jax.planning import run
from vlguard_jax.planning import show

SOURCES = {"vlguard": config.SourceSettings(format="vlguard"), "mix": config.SourceSettings(count=5000)}
POSTHOC = config.TrainConfig(
    model=config.ModelSettings(path="liuhaotian/llava-v1.5-7b"),
    data=config.DataSettings(sources=SOURCES, mode="pack", order="shuffle"),
    optimizer=config.OptimizerSettings(epochs=3.0),
)
EVALUATION = config.EvalConfig(model=config.ModelSettings(path="ys-zong/llava-v1.5-7b-Posthoc"))


def made(
    topology: str, settings: advice.Settings = POSTHOC, preset: str = "", price: float | None = None
) -> estimate.Estimate:
    return run.planner(settings, preset, price)(settings, chips.parse(topology))


def changed(settings: config.TrainConfig = POSTHOC, **sections) -> config.TrainConfig:
    return dataclasses.replace(
        settings, **{k: dataclasses.replace(getattr(settings, k), **v) for k, v in sections.items()}
    )


def test_contract():
    found = made("v5e:4x4").as_json()
    assert list(found)[:8] == [
        "topology",
        "chips",
        "fits",
        "per_chip",
        "flops_per_step",
        "step_seconds",
        "hours",
        "dollars",
    ]
    assert found["topology"] == "v5e:4x4" and found["chips"] == 16 and found["fits"] is True
    assert {"peak_gib", "weights_gib", "moments_gib", "gradients_gib", "activations_gib"} <= set(found["per_chip"])
    assert {"compute", "hbm", "interconnect", "expected", "low", "high"} <= set(found["step_seconds"])
    assert all(math.isfinite(value) for value in found["step_seconds"].values())


def test_parts_add_up():
    found = made("v5e:4x4", price=2.0)
    others = ("peak_gib", "pictures_gib", "export_gib", "export_host_gib")
    kinds = {name: size for name, size in found.per_chip.items() if name not in others}
    assert found.per_chip["peak_gib"] == pytest.approx(sum(kinds.values()))
    assert found.hours["total"] == pytest.approx(sum(value for name, value in found.hours.items() if name != "total"))
    assert found.hours["steps"] == pytest.approx(165 * found.step_seconds["expected"] / 3600)
    assert found.dollars == pytest.approx(2.0 * 16 * found.hours["total"])
    time = found.step_seconds
    assert max(time["compute"], time["interconnect"]) < time["low"] < time["expected"] < time["high"]
    rate = 16 * 197e12
    assert found.mfu["expected"] == pytest.approx(found.flops_per_step / (rate * time["expected"]))
    assert found.flops_per_step < found.flops["computed"] == pytest.approx(rate * time["compute"])


def test_flops_of_the_recipe():
    """About 128 conversations of 832 tokens, 41 GFLOP a token."""
    assert made("v5e:4x4").flops_per_step == pytest.approx(128 * 832 * 41e9, rel=0.03)


@pytest.mark.parametrize(
    ("topology", "preset", "lora", "fits"),
    [
        ("v5e:4x4", "7b", 0, True),
        ("v5e:2x4", "7b", 0, False),
        ("v5e:2x4", "7b", 128, True),
        ("v5e:4x4", "13b", 0, False),
        ("v5e:4x8", "13b", 0, True),
        ("v5e:4x4", "13b", 128, True),
        ("v6e:4x4", "13b", 0, True),
        ("v5p:2x2x2", "7b", 0, True),
    ],
)
def test_slices_that_the_recipes_are_meant_for(topology, preset, lora, fits):
    settings = changed(lora={"rank": lora}, data={"max_row_len": 4096})
    assert made(topology, settings, preset).fits is fits


def test_one_h200_with_small_micro_batches():
    """16 bytes a parameter are 101 GiB of 125."""
    assert not made("h200:1").fits
    found = made("h200:1", changed(run={"rows": 1}, data={"mode": "pad"}))
    assert found.per_chip["weights_gib"] + found.per_chip["moments_gib"] == pytest.approx(75.5, rel=0.01)


def test_what_the_recipe_cannot_fill():
    assert made("v5e:4x4").stops == ""
    assert "128 conversations a step are fewer than 256 row shards" in made("v5e:16x16").stops
    assert made("h100:32").stops.startswith("collectives take ")


def test_measured_replaces_formulas():
    settings, topology = POSTHOC, chips.parse("v5e:4x4")
    planned = made("v5e:4x4")
    named = models.resolve(settings.model)
    work = run._works(settings, named)(settings, 16)
    gib = memory.GIB
    measured = estimate.Measured(
        {"peak": 20 * gib, "arguments": 5 * gib}, links=1e12, network=0.0, compile_seconds=1000.0, source="compiled"
    )
    found = estimate.train(settings, named.config, topology, work, measured=measured)
    export = {name: planned.per_chip[name] for name in ("export_gib", "export_host_gib")}
    assert found.per_chip == {"peak_gib": 20.0, "arguments_gib": 5.0, **export} and not found.fits
    assert found.step_seconds["interconnect"] == pytest.approx(1e12 / 90e9) and "compiled" in found.notes
    assert found.hours["compile"] == pytest.approx(work.shapes * 1000 / 3600)
    assert found.flops_per_step == planned.flops_per_step


def test_what_ends_without_room_to_write_the_model_does_not_fit():
    settings, named = POSTHOC, models.resolve(POSTHOC.model)
    work = run._works(settings, named)(settings, 16)
    small = estimate.Measured({"peak": memory.GIB}, links=1e12, network=0.0, compile_seconds=1.0, source="compiled")

    def found(settings: config.TrainConfig = settings, **chip: float) -> estimate.Estimate:
        topology = chips.parse("v5e:4x4")
        topology = dataclasses.replace(topology, chip=dataclasses.replace(topology.chip, **chip))
        return estimate.train(settings, named.config, topology, work, measured=small)

    export = found().per_chip["export_gib"]
    assert 2 < export == found().per_chip["peak_gib"] < 3 and found().fits
    assert not found(usable_gib=export - 0.01).fits and found(usable_gib=export + 0.01).fits
    assert not found(host_gib=1.0).fits and found(host_gib=2.0).fits
    without = found(changed(run={"export": "none"}), usable_gib=1.0, host_gib=0.1)
    assert without.fits and without.per_chip == {"peak_gib": 1.0}


def test_offloading_needs_the_hosts_memory():
    found = made("v5e:4x4", changed(run={"remat": "offload"}))
    assert found.per_chip["host_gib"] > 0 and "host_gib" not in made("v5e:4x4").per_chip


def test_no_price():
    found = made("tpu7x:2x2x1")
    assert found.dollars is None and found.price is None and found.as_json()["dollars"] is None
    assert "published_low" not in found.mfu and made("tpu7x:2x2x1", price=3.0).dollars > 0


def test_evaluation():
    found = made("v6e:1x1", EVALUATION)
    assert found.kind == "evaluate" and found.fits and found.steps == -(-1558 // 16) * 256
    # slots for 640 + 64 tokens, rounded up, and an answer; in 1 GiB two prefixes of 640 and their pictures' features
    kept = (2 * 640 * 0.5 + int(0.1 * 2**30 / 8192) * 8192 / 2**20) / 1024
    assert found.per_chip["cache_gib"] == pytest.approx(16 * (768 + 256) * 0.5 / 1024 + kept)
    # one chip reads the weights once a token, at 70 % of 1,638 GB/s, beside the keys and values
    assert found.step_seconds["decode"] == pytest.approx((13.5e9 + 16 * 1024 * 2**19) / (0.7 * 1638e9), rel=0.03)
    assert {"prefill", "decode"} <= set(found.as_json()["step_seconds"])
    text = dataclasses.replace(EVALUATION, benchmark=config.BenchmarkSettings(name="prompts", limit=10))
    assert made("v6e:1x1", text).step["prompt"] == 64 and made("v6e:1x1", text).hours["total"] < found.hours["total"]


def test_models():
    assert models.resolve(config.ModelSettings(path="lmsys/vicuna-13b-v1.5@main")).config.text.width == 5120
    assert models.resolve(config.ModelSettings(path="anything"), "7b").name == "llava-v1.5-7b"
    for path, expected in (
        ("liuhaotian/llava-v1.6-mistral-7b", "llava-v1.6-mistral-7b"),
        ("llava-hf/llava-v1.6-mistral-7b-hf@main", "llava-v1.6-mistral-7b"),
        ("llava-hf/llava-v1.6-vicuna-7b-hf", "llava-v1.6-vicuna-7b"),
        ("lmms-lab/llama3-llava-next-8b", "llama3-llava-next-8b"),
        ("llava-hf/llama3-llava-next-8b-hf", "llama3-llava-next-8b"),
    ):
        found = models.resolve(config.ModelSettings(path=path))
        assert found.config is table.PRESETS[expected] and f"sizes of {expected}, after the name" in found.note
    for path, preset, message in (
        ("", "", "config.model.path is empty"),
        ("owner/name", "", "owner/name: not a folder here, and its name tells no size"),
        ("x-70b", "", "tells no size"),
        ("x", "17b", "--model=17b is unknown; did you mean '7b'?"),
    ):
        with pytest.raises(errors.UserError) as caught:
            models.resolve(config.ModelSettings(path=path), preset)
        assert message in str(caught.value)


def test_options_are_ordered_and_true():
    settings, topology = changed(data={"mode": "pad"}), chips.parse("v5e:4x4")
    planner = run.planner(settings)
    found = advice.options(settings, topology, planner)
    assert [option.plan.fits for option in found] == sorted((option.plan.fits for option in found), reverse=True)
    same = [option for option in found if option.plan.fits and option.same]
    costs = [option.plan.dollars for option in same]
    assert costs == sorted(costs) and found[: len(same)] == same
    assert {"--config.run.rows=16", "--config.data.mode=pack", "--topology=v5e:4x8"} <= {
        option.change for option in same
    }
    assert all(option.plan.per_chip["peak_gib"] < planner(settings, topology).per_chip["peak_gib"] for option in same)
    assert next(option.change for option in found if not option.same).startswith("--config.lora.rank=128")


def test_options_of_an_evaluation():
    decode = dataclasses.replace(EVALUATION.decode, batch_size=64)
    settings = dataclasses.replace(EVALUATION, mesh=config.MeshSettings(data=-1, fsdp=1, tensor=1), decode=decode)
    topology, planner = chips.parse("v5e:2x2"), run.planner(settings)
    assert not planner(settings, topology).fits
    changes = {option.change: option.plan.fits for option in advice.options(settings, topology, planner)}
    assert changes["--config.mesh.data=1 --config.mesh.tensor=4"] and "--config.decode.batch_size=32" in changes


def test_sweep():
    planner = run.planner(POSTHOC)
    found = advice.sweep(POSTHOC, planner, ["v5e", "v6e"])
    assert {plan.topology.chip.name for plan in found.plans} == {"v5e", "v6e"}
    assert max(plan.topology.chips for plan in found.plans) == 256
    everything, quick = found.cheapest(math.inf), found.cheapest(0.2)
    assert everything.dollars <= quick.dollars and quick.hours["total"] <= 0.2 and quick.fits
    assert all(plan.dollars >= quick.dollars for plan in found.plans if plan.fits and plan.hours["total"] <= 0.2)
    assert found.cheapest(0.01) is None
    assert found.stops["v5e"][0] == "v5e:16x16"
    for deadline, told in (
        (math.inf, f"cheapest: {everything.topology.name}, "),
        (0.2, f"cheapest within 0.2 h: {quick.topology.name}, "),
        (0.01, "no slice with a price is done within 0.01 h; the fastest is "),
    ):
        screen = console.Console(width=200)
        with screen.capture() as said:
            show.sweep(found, deadline, screen)
        assert told in said.get()
    stored = found.as_json(math.inf)
    assert stored["deadline_hours"] is None and stored["cheapest"]["topology"] == everything.topology.name
    with pytest.raises(errors.UserError, match="does not multiply"):
        advice.sweep(changed(mesh={"tensor": 3}), run.planner(changed(mesh={"tensor": 3})), ["v5e"])
