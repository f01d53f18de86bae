"""The compiler's word on a small step, for slices that are not here."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.planning import compilers
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import layouts
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.parallel import gather
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.planning import advice
from vlguard_jax.planning import chips
from vlguard_jax.planning import compiled
from vlguard_jax.planning import estimate
from vlguard_jax.planning import evaluation
from vlguard_jax.planning import memory
from vlguard_jax.planning import run
from vlguard_jax.planning import topologies
from vlguard_jax.planning import work as work_lib

FULL = table.PRESETS["llava-v1.5-7b"]
MODEL = dataclasses.replace(
    FULL,
    text=dataclasses.replace(
        FULL.text, width=256, num_layers=3, num_heads=2, num_kv_heads=2, mlp_width=512, vocab_size=1024
    ),
    vision=dataclasses.replace(FULL.vision, image_size=28, width=64, num_layers=2, num_heads=2, mlp_width=128),
)
SETTINGS = config.TrainConfig(data=config.DataSettings(sources={"a": config.SourceSettings()}, batch_size=4))
WORK = work_lib.Work(
    steps=10,
    shapes=1,
    conversations=4,
    tokens=2000.0,
    squares=1e6,
    computed=4 * 512.0,
    computed_squares=4 * 512.0**2,
    pictures=4.0,
    units=4.0,
    unit_room=4.0,
    rows=4,
    row_len=512,
    room=family.Room(1, 4),
    micro=1,
    assumed=(),
)
V5E = chips.parse("v5e:2x2")


@compilers.needs_libtpu
def test_a_step_is_compiled_and_measured():
    said = []
    found = compiled.train(SETTINGS, MODEL, V5E, WORK, said.append)
    assert len(said) == 1 and "v5e:2x2" in said[0] and found.fits
    sizes = {kind: found.kinds[kind] for kind in ("weights", "moments", "frozen", "batch", "temporaries")}
    trained = estimate.flops.sizes(MODEL)
    assert sizes["weights"] == pytest.approx(4 * (trained.text + trained.projector) / 4, rel=0.05)
    assert sizes["moments"] == pytest.approx(2 * sizes["weights"], rel=0.01)
    assert sizes["weights"] + sizes["moments"] < found.kinds["peak"] <= 1.05 * sum(found.kinds.values())
    # in bf16 every matrix is gathered at least twice and its gradient scattered once, three parts of four each time
    assert (
        found.links is not None
        and found.links > 3 * 0.75 * 2 * trained.layer * trained.layers
        and found.network is None
    )
    plan = estimate.train(SETTINGS, MODEL, V5E, WORK, measured=found)
    step, export = found.kinds["peak"] / memory.GIB, plan.per_chip["export_gib"]
    assert plan.per_chip["peak_gib"] == pytest.approx(max(step, export)) and plan.fits
    assert plan.bytes_per_step["links"] == found.links
    alone = dataclasses.replace(SETTINGS, run=dataclasses.replace(SETTINGS.run, export="none"))
    assert estimate.train(alone, MODEL, V5E, WORK, measured=found).per_chip["peak_gib"] == pytest.approx(step)


@compilers.needs_cuda
def test_a_step_for_gpus_is_within_the_estimate():
    gpus = chips.parse("h200:4")
    found = compiled.train(SETTINGS, MODEL, gpus, WORK)
    sizes = estimate.flops.sizes(MODEL)
    assert found.kinds["weights"] == pytest.approx((sizes.text + sizes.projector) * 4 / 4, rel=0.05)
    assert found.kinds["weights"] + found.kinds["moments"] < found.kinds["peak"] <= 1.05 * sum(found.kinds.values())
    assert found.links is not None and found.links > 3 * 0.75 * 2 * sizes.layer * sizes.layers and found.network is None


@compilers.needs_libtpu
def test_bytes_between_slices_are_counted():
    """Joined by `data`, two slices sum the gradients of what each device holds, and nothing else of size."""
    pair = chips.parse("2xv5e:2x2")
    found = compiled.train(SETTINGS, MODEL, pair, dataclasses.replace(WORK, rows=8))
    sizes = estimate.flops.sizes(MODEL)
    assert found.network == pytest.approx(2 * (sizes.text + sizes.projector) / 4, rel=0.15)
    alone = compiled.train(SETTINGS, MODEL, V5E, WORK)
    assert found.links == pytest.approx(alone.links, rel=0.25) and alone.network is None
    plan = estimate.train(SETTINGS, MODEL, pair, WORK, measured=found)
    assert plan.bytes_per_step["network"] == found.network


@compilers.needs_libtpu
def test_what_is_too_large_does_not_fit():
    large = dataclasses.replace(WORK, rows=4096, row_len=8192, room=family.Room(16, 64))
    found = compiled.train(SETTINGS, MODEL, V5E, large)
    assert (
        not found.fits
        and found.kinds["peak"] > V5E.chip.usable_gib * memory.GIB
        and "RESOURCE_EXHAUSTED" in found.source
    )
    plan = estimate.train(SETTINGS, MODEL, V5E, large, measured=found)
    assert not plan.fits and plan.per_chip["peak_gib"] > V5E.chip.usable_gib


class Refusing(jax.stages.Lowered):
    """A lowered step that the compiler refuses."""

    def __init__(self, message: str) -> None:
        self.message = message

    def compile(self) -> None:
        raise jax.errors.JaxRuntimeError(self.message)


def measure(monkeypatch, message: str) -> estimate.Measured:
    job = compiled.Job("step", "few rows", {"weights": 2.0 * memory.GIB}, Refusing(message))
    monkeypatch.setattr(compiled, "step", lambda *_: job)
    return compiled.train(SETTINGS, MODEL, V5E, WORK)


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        ("RESOURCE_EXHAUSTED: ... required for HLO temporaries (30.30G) exceeds available HBM (15.75G).", 30.3),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used"
            " 20.50G of 15.75G hbm.",
            20.5,
        ),
        ("RESOURCE_EXHAUSTED: no number for HBM\nsecond line", 15.75),
    ],
)
def test_the_size_is_read_from_the_message(monkeypatch, message, gib):
    found = measure(monkeypatch, message)
    assert not found.fits and found.kinds == {"peak": pytest.approx(gib * memory.GIB), "weights": 2 * memory.GIB}
    assert not estimate.train(SETTINGS, MODEL, V5E, WORK, measured=found).fits and "\n" not in found.source


@pytest.mark.parametrize("first", ["UNIMPLEMENTED: this", "RESOURCE_EXHAUSTED: E1001: CompileTimeScopedVmemOom:"])
def test_another_refusal_is_the_users_to_know(monkeypatch, first):
    with pytest.raises(errors.UserError) as caught:
        measure(monkeypatch, f"{first}\nthat")
    assert str(caught.value) == f"v5e:2x2: the compiler refuses the step: {first} that; add --estimate"


@compilers.needs_libtpu
@pytest.mark.parametrize(("fsdp", "tensor"), [(32, 1), (8, 4)])
def test_a_tuned_model_is_gathered_within_the_estimate(fsdp, tensor):
    """Blocks of the 13B model on v5e:4x8; a whole stack of its layers has no room there."""
    model, topology = table.PRESETS["llava-v1.5-13b"], chips.parse("v5e:4x8")
    mesh = mesh_lib.build(config.MeshSettings(data=1, fsdp=fsdp, tensor=tensor), topologies.devices(topology))
    shapes = {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in layouts.tree_shapes(model).items()}
    flat = trees.flatten(
        rules.abstract(trees.unflatten(shapes), rules.shardings(model, None, mesh), np.dtype(np.float32))
    )
    scalar = jax.ShapeDtypeStruct((), np.int32)
    for path in ("text.layers.mlp.up_proj.kernel", "text.layers.mlp.down_proj.kernel", "text.embed.embedding"):
        array, stacked = flat[path], ".layers." in path
        parts = array.shape[stacked] // array.sharding.shard_shape(array.shape)[stacked]
        rows = gather.rows_at_a_time(array.shape[stacked:], 4, parts)[0].count
        layer, spec = scalar if stacked else None, array.sharding.spec
        found = gather.take.lower(array, layer, scalar, mesh=mesh, spec=spec, rows=rows).compile().memory_analysis()
        assert 0.9 < found.output_size_in_bytes / gather.BLOCK < 1.01
        assert found.output_size_in_bytes + found.temp_size_in_bytes <= memory.export(memory.Memory()).gathered
    if tensor == 1:  # once is enough
        with pytest.raises(jax.errors.JaxRuntimeError, match="exceeds available HBM"):
            jax.jit(lambda x: x, out_shardings=mesh_lib.replicated(mesh)).lower(
                flat["text.layers.mlp.up_proj.kernel"]
            ).compile()


def test_the_suggestion_is_compiled():
    """Of what fits by formula, one after the other is compiled until one does fit; the failed one moves behind."""
    fits = estimate.train(SETTINGS, MODEL, V5E, WORK)
    options = [advice.Option(str(i), True, dataclasses.replace(SETTINGS, seed=i), fits) for i in range(3)]
    asked = []

    def planner(settings, topology):
        asked.append(settings.seed)
        return dataclasses.replace(fits, fits=settings.seed == 1)

    found = advice.confirmed(options, planner)
    assert asked == [0, 1] and [option.change for option in found] == ["1", "2", "0"]


ANSWERING = config.EvalConfig(
    model=config.ModelSettings(path="ys-zong/llava-v1.5-7b-Posthoc"), decode=config.DecodeSettings(batch_size=8)
)


@compilers.needs_libtpu
def test_prefill_and_decode_are_compiled_and_measured():
    said = []
    reading, writing = compiled.answers(ANSWERING, MODEL, V5E, said.append)
    assert len(said) == 2 and "prefill" in said[0] and "decode" in said[1] and reading.fits and writing.fits
    asked, text = evaluation.asked(ANSWERING, MODEL, V5E), MODEL.text
    assert asked.slots == 8 and 0 < asked.pictures <= asked.together
    sizes = estimate.flops.sizes(MODEL)
    weights = 2 * ((sizes.text + sizes.projector) / 4 + sizes.tower)
    assert reading.kinds["weights"] == writing.kinds["weights"] == pytest.approx(weights, rel=0.05)
    assert (asked.prefix, asked.rest, asked.length) == (64, 32, 128 + ANSWERING.decode.max_new_tokens)
    place = 2 * 2 * text.num_layers * text.num_kv_heads * text.head_width
    cache = place * asked.slots / 4 * asked.length
    kept = place * asked.kept * 128 + 2 * asked.features * text.width
    assert reading.kinds["cache"] == writing.kinds["cache"] == cache + kept
    # What lies on the others comes over for a prefill. For a token of a small model the compiler sends the activations,
    # which are fewer than the weights.
    others = 2 * 0.75 * sizes.layer * sizes.layers
    assert 0.5 < reading.links / others < 1.5 and 0 < writing.links < others
    plan = evaluation.evaluate(ANSWERING, MODEL, V5E, measured=(reading, writing))
    larger = max(reading, writing, key=lambda one: one.kinds["peak"])
    assert plan.fits and plan.per_chip["peak_gib"] == pytest.approx(larger.kinds["peak"] / memory.GIB)
    assert {reading.source, writing.source} <= set(plan.notes)
    assert plan.hours["compile"] * 3600 == pytest.approx(reading.compile_seconds + writing.compile_seconds)


def test_an_evaluation_that_was_refused_does_not_fit():
    good = estimate.Measured({"peak": 1.0}, None, None, 1.0, "compiled")
    found = evaluation.evaluate(ANSWERING, MODEL, V5E, measured=(good, dataclasses.replace(good, fits=False)))
    assert not found.fits and evaluation.evaluate(ANSWERING, MODEL, V5E, measured=(good, good)).fits


def test_evaluations_are_compiled_too():
    """`plan` asks for the two programs of an evaluation, and shows what comes of it."""
    good = estimate.Measured({"peak": 3.0 * memory.GIB}, None, None, 1.0, "compiled")
    measure = run.Measure(train=lambda *_: pytest.fail("a training"), answers=lambda *_: (good, good))
    assert run.planner(ANSWERING, measure=measure)(ANSWERING, V5E).per_chip["peak_gib"] == 3.0
