"""Compiles the very programs of a run (the train step, or prefill and decode) for a topology: whether they fit, and
what is in HBM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import math
import re
import time
from typing import Any

import jax

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.generation import lengths
from vlguard_jax.generation import program as generation_program
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import shapes
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import evaluation
from vlguard_jax.planning import hlo
from vlguard_jax.planning import memory
from vlguard_jax.planning import topologies
from vlguard_jax.planning import traffic
from vlguard_jax.planning import work as work_lib
from vlguard_jax.training import program as program_lib

SAID = 200  # characters shown of the compiler's message, which is pages long
_NEEDED = re.compile(r"(?:Used |\()([\d.]+)([KMGT])\b")
_OF_HBM = re.compile(r"\bhbm\b", re.IGNORECASE)
_UNITS = {unit: 2.0 ** (10 * i) for i, unit in enumerate("KMGT", 1)}


@dataclasses.dataclass(frozen=True)
class Job:
    """A program for the compiler. shape: of its input, in words; arguments: bytes on one device, by kind."""

    name: str
    shape: str
    arguments: Mapping[str, float]
    lowered: jax.stages.Lowered


def step(settings: config.TrainConfig, model: family.Config, topology: chips.Topology, work: work_lib.Work) -> Job:
    """The largest step of `work` on the topology's devices.

    Raises:
      UserError: see `topologies.devices`, `traffic.mesh` and `program.build`.
    """
    shape = traffic.mesh(settings.mesh, topology)
    mesh = _mesh(shape, topology)
    made = program_lib.build(settings, model, estimate.lora_of(settings), mesh, work.steps)
    batch = shapes.batch(model, mesh, work.rows, work.row_len, work.room, micro=work.micro)
    units = work.room.units * shape.row_shards
    words = f"{work.rows} rows of {work.row_len:,} tokens, {units} {_unit(model)}s, {work.micro} micro-batches"
    lowered = made.step.lower(made.state, made.frozen, made.reference, batch)  # type: ignore[attr-defined]
    return Job("step", words, _arguments(made, batch), lowered)


def generation(settings: config.EvalConfig, model: family.Config, topology: chips.Topology) -> tuple[Job, Job]:
    """(prefill of the prefixes, or of prompts without one, that are read together; decode of one token in every slot)
    on the topology's devices.

    Raises:
      UserError: see `topologies.devices`, `traffic.mesh` and `generation.program.build`.
    """
    shape, asked = traffic.mesh(settings.mesh, topology), evaluation.asked(settings, model, topology)
    compute = config.on_backend(settings.precision, topology.chip.kind)
    decode, mesh = settings.decode, _mesh(shape, topology)
    draws, int8 = decode.temperature > 0, decode.kv_cache == "int8"
    made = generation_program.build(model, None, compute, mesh, max_new=decode.max_new_tokens, draws=draws, int8=int8)
    row, cache = generation_program.decode_shapes(made, asked.slots, asked.length)
    kinds = {"weights": _bytes(made.params), "cache": _bytes(cache)}
    writing = made.decode.lower(made.params, row, row, row, cache)  # type: ignore[attr-defined]
    if asked.prefix:
        shards, places = shape.row_shards, lengths.room(asked.prefix)
        kept = generation_program.kept_shapes(made, shards * asked.features, shards * asked.kept, places)
        given: Any = generation_program.prefix_shapes(made, asked.together, asked.prefix)
        kinds["cache"] += _bytes(kept)
        reading = made.keep.lower(made.params, kept, given)  # type: ignore[attr-defined]
    else:
        slots = generation_program.slot_shapes(made, asked.slots, asked.length)
        given = generation_program.prompt_shapes(made, asked.together, asked.rest)
        reading = made.admit.lower(made.params, slots, None, given)  # type: ignore[attr-defined]
    prompts = f"{asked.together} rows of {asked.prefix or asked.rest} tokens, {asked.pictures} pictures"
    return (
        Job("prefill", prompts, {**kinds, "batch": _bytes(given)}, reading),
        Job("decode", f"{asked.slots} slots of {asked.length} tokens", kinds, writing),
    )


def build(
    job: Job, topology: chips.Topology, say: Callable[[str], None] = lambda _: None
) -> tuple[estimate.Measured, jax.stages.Compiled | None]:
    """Compile, and read what the compiler reserved; no program if it is too large. say: called before the wait.

    Raises:
      UserError: the compiler refuses the program for another reason than its size.
    """
    say(f"compiling the {job.name} for {topology.name} ({job.shape}); a 7B model takes one to five minutes")
    started = time.monotonic()
    per_chip = topology.chip.devices
    kinds = {name: size * per_chip for name, size in job.arguments.items()}
    try:
        done = job.lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        return _refused(job, topology, kinds, str(e), time.monotonic() - started), None
    seconds = time.monotonic() - started
    found = done.memory_analysis()
    assert found is not None  # every TPU compiler has it
    # the tower's in decode, which is in memory all the same
    unread = max(0.0, sum(job.arguments.values()) - found.argument_size_in_bytes)
    kinds["temporaries"] = found.temp_size_in_bytes * per_chip
    kinds["program"] = found.generated_code_size_in_bytes * per_chip
    links, network, counted = _moved(done.as_text() or "", topology)
    source = f"memory: the compiler's, for a {job.name} of {job.shape}; {counted}; compiled here in {seconds:.0f} s"
    return estimate.Measured(
        {"peak": (found.peak_memory_in_bytes + unread) * per_chip, **kinds}, links, network, seconds, source
    ), done


def train(
    settings: config.TrainConfig,
    model: family.Config,
    topology: chips.Topology,
    work: work_lib.Work,
    say: Callable[[str], None] = lambda _: None,
) -> estimate.Measured:
    """The compiler's figures for the largest step.

    Raises:
      UserError: as `step` and `build`.
    """
    return build(step(settings, model, topology, work), topology, say)[0]


def answers(
    settings: config.EvalConfig,
    model: family.Config,
    topology: chips.Topology,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[estimate.Measured, estimate.Measured]:
    """The compiler's figures for (prefill, decode).

    Raises:
      UserError: as `generation` and `build`.
    """
    reading, writing = (build(job, topology, say)[0] for job in generation(settings, model, topology))
    return reading, writing


def _mesh(shape: traffic.Mesh, topology: chips.Topology) -> jax.sharding.Mesh:
    return mesh_lib.build(
        config.MeshSettings(data=shape.data, fsdp=shape.fsdp, tensor=shape.tensor), topologies.devices(topology)
    )


def _unit(model: family.Config) -> str:
    sees = table.of(model).pictures
    return sees.unit if sees else "picture"


def _moved(text: str, topology: chips.Topology) -> tuple[float | None, float | None, str]:
    """(bytes that a chip receives over links in a step, over the network, a description); None where the formula
    applies."""
    try:
        found = hlo.received(hlo.collectives(text, topology.devices // topology.slices))
        across = hlo.network(text, topology.slices) if topology.slices > 1 else None
    except hlo.UnreadableError as e:
        return None, None, f"collectives: by formula, as {e}"
    kinds = [f"{kind} {count / 1e9:.2f}" for kind, count in found.items()]
    kinds += [] if across is None else [f"from other slices {across / 1e9:.2f}"]
    said = f"collectives: the compiled module's, GB a device receives: {', '.join(kinds) or 'none'}"
    per_chip = topology.chip.devices
    return float(sum(found.values())) * per_chip, None if across is None else across * per_chip, said


def _arguments(made: program_lib.Program, batch: Any) -> dict[str, float]:
    """Bytes of the step's arguments on one device, by kind."""
    trees = {"weights": made.state.params, "moments": made.state.opt_state, "frozen": made.frozen, "batch": batch}
    if made.reference is not None:
        own = {id(leaf) for leaf in jax.tree.leaves(made.frozen)}
        trees["reference"] = [leaf for leaf in jax.tree.leaves(made.reference) if id(leaf) not in own]
    return {name: _bytes(tree) for name, tree in trees.items()}


def _bytes(tree: Any) -> float:
    """Bytes on one device."""
    return float(sum(map(_own, jax.tree.leaves(tree))))


def _own(leaf: jax.ShapeDtypeStruct) -> int:
    assert leaf.sharding is not None
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _refused(
    job: Job, topology: chips.Topology, kinds: dict[str, float], message: str, seconds: float
) -> estimate.Measured:
    """The peak of a program that is too large, from the compiler's message.

    Raises:
      UserError: the message is about something else.
    """
    first = " ".join(message.split())[:SAID]
    if "RESOURCE_EXHAUSTED" not in message or not _OF_HBM.search(message):  # a kernel can also be too large for VMEM
        raise errors.UserError(f"{topology.name}: the compiler refuses the {job.name}: {first}; add --estimate")
    said = _NEEDED.search(message)
    stated = float(said[1]) * _UNITS[said[2]] * topology.chip.devices if said else 0.0
    peak = max(stated, topology.chip.usable_gib * memory.GIB, sum(kinds.values()))
    return estimate.Measured({"peak": peak, **kinds}, None, None, seconds, f"the compiler: {first}", fits=False)
