"""The shipped 7B and 13B configs, compiled by the TPU compiler for a slice they are meant for; nothing runs, no chip is
needed.

`make aot` compiles the first training and the first evaluation of each family, `make aot ALL=1` every one. Each program
is compiled once, and all is asserted of that one module.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
import re

import jax
import pytest

from tests import source
from tests.aot import accesses
from tests.aot import checks
from vlguard_jax import config
from vlguard_jax.families import family
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.planning import chips
from vlguard_jax.planning import compiled
from vlguard_jax.planning import estimate
from vlguard_jax.planning import evaluation
from vlguard_jax.planning import flops
from vlguard_jax.planning import memory
from vlguard_jax.planning import models
from vlguard_jax.planning import run
from vlguard_jax.planning import traffic
from vlguard_jax.planning import work as work_lib

pytestmark = pytest.mark.aot

TRAIN = [
    ("train/llava_v15_7b_mixed", "v5e:4x4"),
    ("train/llava_v15_7b_mixed", "v5p:2x2x2"),
    ("train/llava_v15_7b_mixed", "v6e:4x4"),
    ("train/llava_v15_13b_mixed", "v6e:4x4"),
    ("train/llava_v15_13b_mixed", "v5e:4x8"),
    ("train/llava_v15_7b_posthoc", "v5e:4x4"),
    ("train/llava_v15_7b_mixed_lora", "v5e:2x4"),
    ("train/llava_v15_13b_mixed_lora", "v5e:4x4"),
    ("train/llava_v16_vicuna_7b_posthoc", "v5e:4x4"),
    ("train/llava_v16_vicuna_7b_mixed_lora", "v5e:2x4"),
    ("train/llava_v16_vicuna_13b_mixed", "v5e:4x8"),
]
OTHER_DECODERS = [
    ("train/llava_v16_mistral_7b_posthoc", "v5e:4x4"),
    ("train/llama3_llava_next_8b_posthoc", "v5e:4x8"),
]
ANSWER = [
    ("released/llava_v15_7b_mixed", "v5e:2x2"),
    ("released/llava_v15_7b_mixed", "v6e:1x1"),
    ("released/llava_v16_vicuna_7b", "v5e:2x2"),
]
ROOM = 0.75  # GiB that stay free for what the compiler does not see: 15 of a v5e's 15.75
# Times its weights and cache that a decode step may read and write. Where a device has one row, as with LLaVA-NeXT's
# long prompts, XLA takes the cache of some layers into VMEM and writes it back whole: 1.203 on v5e:2x2.
READ, READ_OF_ONE_ROW = 1.15, 1.25
CLOSE = 0.15  # share by which --estimate may miss


def first_of_each(cases: list[tuple[str, str]], *others: tuple[str, str]) -> list[object]:
    """All but the first of a family are left to `make aot ALL=1`: minutes each, and they differ in sizes alone."""
    families = [re.split("_[0-9]+b", path)[0] for path, _ in cases]
    first = [family not in families[:i] for i, family in enumerate(families)] + [False] * len(others)
    return [
        pytest.param(*case, marks=[] if is_first else [pytest.mark.more])
        for case, is_first in zip([*cases, *others], first, strict=True)
    ]


def load(path: str) -> config.TrainConfig | config.EvalConfig:
    file = source.ROOT / "configs" / f"{path}.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return run.settings_of(module.get_config())


@dataclasses.dataclass(frozen=True)
class Case:
    path: str
    settings: config.TrainConfig | config.EvalConfig
    model: family.Config
    topology: chips.Topology


def case_of(path: str, name: str) -> Case:
    settings = load(path)
    return Case(path, settings, models.resolve(settings.model).config, chips.parse(name))


def build(case: Case, job: compiled.Job, formula: float, record) -> tuple[estimate.Measured, jax.stages.Compiled]:
    """Compile, and record the line of the table."""
    measured, done = compiled.build(job, case.topology)
    peak, usable = measured.kinds["peak"] / memory.GIB, case.topology.chip.usable_gib
    counted = measured.source.split("receives: ")[-1].split(";")[0]
    name = pathlib.Path(case.path).name
    figures = f"{peak:8.2f} {usable - peak:6.2f} {formula:8.2f} {measured.compile_seconds:9.0f}"
    record("aot", f"{name:32} {case.topology.name:10} {job.name:8} {figures}  {counted}")
    assert done is not None, measured.source
    return measured, done


def faults(
    case: Case, measured: estimate.Measured, done: jax.stages.Compiled, tokens: int, formula: float
) -> list[str]:
    """All that is wrong with a module. tokens: positions of a batch, all devices together; formula: GiB that
    `--estimate` says."""
    text, mesh, llm = done.as_text() or "", traffic.mesh(case.settings.mesh, case.topology), case.model.text
    found = checks.replicated(done)
    found += checks.stacks(text, llm)
    found += checks.logits(text, (tokens // mesh.row_shards, tokens), llm, mesh.tensor)
    peak = measured.kinds["peak"] / memory.GIB
    if abs(formula / peak - 1) > CLOSE:
        found.append(f"--estimate says {formula:.2f} GiB, the compiler {peak:.2f}")
    room = case.topology.chip.usable_gib - peak
    return [*found, f"only {room:.2f} GiB are free"] if room < ROOM else found


@pytest.mark.parametrize(
    ("path", "name"), first_of_each(TRAIN, *OTHER_DECODERS), ids=lambda value: value.split("/")[-1]
)
def test_training(path: str, name: str, record_property) -> None:
    case = case_of(path, name)
    settings, model, topology = case.settings, case.model, case.topology
    assert isinstance(settings, config.TrainConfig)
    work = work_lib.from_assumption(settings, model, traffic.mesh(settings.mesh, topology).row_shards)
    formula = estimate.train(settings, model, topology, work).per_chip["peak_gib"]
    measured, done = build(case, compiled.step(settings, model, topology, work), formula, record_property)
    assert faults(case, measured, done, work.rows * work.row_len, formula) == []


@pytest.mark.parametrize(("path", "name"), first_of_each(ANSWER), ids=lambda value: value.split("/")[-1])
def test_answering(path: str, name: str, record_property) -> None:
    case = case_of(path, name)
    settings, model, topology = case.settings, case.model, case.topology
    assert isinstance(settings, config.EvalConfig)
    asked = evaluation.asked(settings, model, topology)
    found = []
    for job, formula in zip(
        compiled.generation(settings, model, topology), evaluation.memories(settings, model, topology), strict=True
    ):
        measured, done = build(case, job, formula.peak / memory.GIB, record_property)
        found += faults(case, measured, done, asked.slots * asked.prompt, formula.peak / memory.GIB)
        if job.name == "decode":
            found += [*checks.copied(done), *more_than_once(case, asked, done, record_property)]
    assert found == []


def more_than_once(case: Case, asked: evaluation.Asked, done: jax.stages.Compiled, record) -> list[str]:
    """Whether a step touches more than a device's part of the decoder's matrices and of the slots' cache, once."""
    llm, mesh = case.model.text, traffic.mesh(case.settings.mesh, case.topology)
    matrices = llm.num_layers * sum(i * o for i, o in flops.linears(llm).values()) + llm.vocab_size * llm.width
    cache = 2 * llm.num_layers * asked.slots * asked.length * llm.num_kv_heads * llm.head_width
    least = 2 * (matrices / (mesh.fsdp * mesh.tensor) + cache / (mesh.row_shards * mesh.tensor))  # both in bf16 or fp16
    share = accesses.accessed(done.as_text() or "") / least
    record("aot", f"{'':32} {case.topology.name:10} reads and writes {share:.3f} of its weights and cache a step")
    most = READ_OF_ONE_ROW if asked.slots == mesh.row_shards else READ
    return [f"a step touches {share:.2f} of its weights and cache, {most} at most"] if share > most else []


SMALL = {"width": 256, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "mlp_width": 512, "vocab_size": 1024}


def small(model: llava_config.LlavaConfig) -> llava_config.LlavaConfig:
    vision = dataclasses.replace(model.vision, image_size=28, width=64, num_layers=2, num_heads=2, mlp_width=128)
    return dataclasses.replace(model, text=dataclasses.replace(model.text, **SMALL), vision=vision)


def test_fp32_is_computed_at_highest_precision() -> None:
    """Of a small model and a small batch, as the question is what the programs ask for, and that the compiler takes it:
    a TPU takes a plain fp32 product for one of bf16. The products are the same at every size."""
    case, topology = case_of("train/llava_v15_7b_posthoc", "v5e:2x2"), chips.parse("v5e:2x2")
    assert isinstance(case.settings, config.TrainConfig)
    settings = dataclasses.replace(case.settings, precision=config.PrecisionSettings("fp32", "fp32", "fp32"))
    assert isinstance(case.model, llava_config.LlavaConfig)
    model = small(case.model)
    work = work_lib.from_assumption(settings, model, 4)  # as 32 rows of 1024 tokens take ten times as long to compile
    work = dataclasses.replace(work, rows=4, row_len=128, room=work.room._replace(units=1, slots=4))
    answering = load("released/llava_v15_7b_posthoc")
    assert isinstance(answering, config.EvalConfig)
    answering = dataclasses.replace(answering, precision=config.EvalPrecisionSettings("fp32"))
    for job in (compiled.step(settings, model, topology, work), *compiled.generation(answering, model, topology)):
        assert (job.name, checks.precision(job.lowered.as_text())) == (job.name, [])
        _, done = compiled.build(job, topology)
        assert done is not None
