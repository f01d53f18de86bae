"""What the TPU compiler says of the very train step that a run makes: it fits or not, and what lies in HBM."""

from __future__ import annotations

from collections.abc import Callable
import math
import re
import time
from typing import Any

import jax

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.models import config as model_config
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import hlo
from vlguard_jax.planning import memory
from vlguard_jax.planning import topologies
from vlguard_jax.planning import traffic
from vlguard_jax.planning import work as work_lib
from vlguard_jax.training import program as program_lib

SAID = 200  # letters of the compiler's message that are shown; it goes on for pages
_NEEDED = re.compile(r"(?:Used |\()([\d.]+)([KMGT])\b")
_OF_HBM = re.compile(r"\bhbm\b", re.IGNORECASE)
_UNITS = {unit: 2.0 ** (10 * i) for i, unit in enumerate("KMGT", 1)}


def lower(
    settings: config.TrainConfig, model: model_config.LlavaConfig, topology: chips.Topology, work: work_lib.Work
) -> tuple[program_lib.Program, Any, jax.stages.Lowered]:
    """(program, batch, lowered step) of the largest step of `work` on the topology's devices.

    Raises:
      UserError: see `topologies.devices`, `traffic.mesh` and `program.build`.
    """
    shape = traffic.mesh(settings.mesh, topology)
    mesh = mesh_lib.build(config.MeshSettings(data=shape.data, fsdp=shape.fsdp, tensor=shape.tensor), topologies.devices(topology))
    made = program_lib.build(settings, model, estimate.lora_of(settings), mesh, work.steps)
    size = model.vision.image_size if model.vision else 1
    batch = program_lib.batch_shapes(mesh, work.micro, work.rows, work.row_len, work.shard_pictures * shape.row_shards, size)
    return made, batch, made.step.lower(made.state, made.frozen, made.reference, batch)  # type: ignore[attr-defined]


def train(
    settings: config.TrainConfig,
    model: model_config.LlavaConfig,
    topology: chips.Topology,
    work: work_lib.Work,
    say: Callable[[str], None] = lambda _: None,
) -> estimate.Measured:
    """Compile the largest step and read what the compiler reserved. say: told before the wait.

    Raises:
      UserError: as `lower`; or the compiler refuses the program for another reason than its size.
    """
    shape = (
        f"{work.rows} rows of {work.row_len:,} tokens, {work.shard_pictures * traffic.mesh(settings.mesh, topology).row_shards} pictures"
    )
    say(f"compiling the step for {topology.name} ({shape}, {work.micro} micro-batches); a 7B model takes one to five minutes")
    started = time.monotonic()
    made, batch, lowered = lower(settings, model, topology, work)
    per_chip = topology.chip.devices
    kinds = {name: size * per_chip for name, size in _arguments(made, batch).items()}
    try:
        done = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        return _refused(topology, kinds, str(e), time.monotonic() - started)
    seconds = time.monotonic() - started
    found = done.memory_analysis()
    assert found is not None  # every compiler of a TPU has it
    kinds["temporaries"] = found.temp_size_in_bytes * per_chip
    kinds["program"] = found.generated_code_size_in_bytes * per_chip
    links, counted = _links(done.as_text() or "", topology)
    source = f"memory: the compiler's, for {shape}; {counted}; compiled here in {seconds:.0f} s"
    return estimate.Measured({"peak": found.peak_memory_in_bytes * per_chip, **kinds}, links, None, seconds, source)


def _links(text: str, topology: chips.Topology) -> tuple[float | None, str]:
    """(bytes that a chip receives over links in a step, what they are), None where they are left to the formula."""
    if topology.slices > 1:
        return None, "collectives: by formula, as the module does not tell links from the network"
    try:
        found = hlo.received(hlo.collectives(text, topology.devices))
    except hlo.UnreadableError as e:
        return None, f"collectives: by formula, as {e}"
    kinds = ", ".join(f"{kind} {count / 1e9:.2f}" for kind, count in found.items())
    return sum(found.values()) * topology.chip.devices, f"collectives: the compiled module's, GB a device receives: {kinds or 'none'}"


def _arguments(made: program_lib.Program, batch: Any) -> dict[str, float]:
    """Bytes on one device of what the step is given."""
    trees = {"weights": made.state.params, "moments": made.state.opt_state, "frozen": made.frozen, "batch": batch}
    if made.reference is not None:
        own = {id(leaf) for leaf in jax.tree.leaves(made.frozen)}
        trees["reference"] = [leaf for leaf in jax.tree.leaves(made.reference) if id(leaf) not in own]
    return {name: float(sum(map(_own, jax.tree.leaves(tree)))) for name, tree in trees.items()}


def _own(leaf: jax.ShapeDtypeStruct) -> int:
    assert leaf.sharding is not None
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _refused(topology: chips.Topology, kinds: dict[str, float], message: str, seconds: float) -> estimate.Measured:
    """A program that is too large has a peak, too.

    Raises:
      UserError: that is not what the compiler says.
    """
    first = " ".join(message.split())[:SAID]
    if "RESOURCE_EXHAUSTED" not in message or not _OF_HBM.search(message):  # a kernel can be too large for VMEM, too
        raise errors.UserError(f"{topology.name}: the compiler refuses the step: {first}; add --estimate")
    said = _NEEDED.search(message)
    stated = float(said[1]) * _UNITS[said[2]] * topology.chip.devices if said else 0.0
    peak = max(stated, topology.chip.usable_gib * memory.GIB, sum(kinds.values()))
    return estimate.Measured({"peak": peak, **kinds}, None, None, seconds, f"the compiler: {first}", fits=False)
