"""Memory, time and cost of a run by formula, in well under a second.

`train` combines operations, bytes and the time model; evaluation.py does so for an evaluation. `Measured` replaces
bytes and collectives with those of the compiled program.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from vlguard_jax import config
from vlguard_jax.families import family
from vlguard_jax.families.blocks import configs
from vlguard_jax.planning import answering
from vlguard_jax.planning import backtest
from vlguard_jax.planning import chips
from vlguard_jax.planning import flops
from vlguard_jax.planning import memory
from vlguard_jax.planning import prices
from vlguard_jax.planning import roofline
from vlguard_jax.planning import traffic
from vlguard_jax.planning import work as work_lib

# share of the host's memory that activations may take: the rest is for the program (and its export), the reader and the
# system
HOST_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Measured:
    """Figures of a compiled program, for one chip, in place of the formulas. kinds: bytes by kind, with "peak"; links,
    network: bytes that its collectives receive over links and over the network, loop bodies multiplied, None for the
    formulas'; compile_seconds: on this machine; fits: whether it compiled."""

    kinds: Mapping[str, flops.Number]
    links: flops.Number | None
    network: flops.Number | None
    compile_seconds: flops.Number
    source: str
    fits: bool = True

    def gib(self) -> dict[str, flops.Number]:
        """As `memory.Memory.gib`."""
        return {f"{kind}_gib": count / memory.GIB for kind, count in self.kinds.items()}

    def moved(self, formula: traffic.Traffic) -> traffic.Traffic:
        """The formula's traffic, replaced where it was counted."""
        counted = {"links": self.links, "network": self.network}
        return dataclasses.replace(formula, **{name: count for name, count in counted.items() if count is not None})


@dataclasses.dataclass(frozen=True)
class Probes:
    """Evaluations on the way of a training. questions: of each; seconds: of each, expected, without compiling; new:
    tokens of a mean answer."""

    count: int
    questions: int
    seconds: flops.Number
    new: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A plan for one config on one topology. per_chip: GiB by kind; "export" is the peak of writing the tuned model
    after the last step, "export_host" the same on the host of process 0, divided by its chips. flops_per_step: model
    FLOPs, all chips. step_seconds: by what bounds them. hours: of the whole run by phase, with "total". dollars: None
    without a price. stops: why more chips would not help, or "". answers: of an evaluation, whose `steps`, `hours` and
    `dollars` are those of the longest answers. probes: of a training that has them (probing.py). judges: local ones of
    an evaluation, by name, with "model" and GiB a chip: "weights_gib", "peak_gib" (judging.py)."""

    kind: str
    model: str
    topology: chips.Topology
    mesh: traffic.Mesh
    per_chip: Mapping[str, flops.Number]
    fits: bool
    flops_per_step: flops.Number
    flops: Mapping[str, flops.Number]
    step_seconds: Mapping[str, flops.Number]
    bytes_per_step: Mapping[str, flops.Number]
    mfu: Mapping[str, flops.Number]
    steps: int
    hours: Mapping[str, flops.Number]
    dollars: float | None
    price: prices.Price | None
    step: Mapping[str, flops.Number]
    stops: str
    notes: tuple[str, ...]
    answers: answering.Answers | None = None
    probes: Probes | None = None
    judges: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The JSON values for `--json`."""
        return {
            "topology": self.topology.name,
            "chips": self.topology.chips,
            "fits": self.fits,
            "per_chip": {"usable_gib": self.topology.chip.usable_gib, **self.per_chip},
            "flops_per_step": self.flops_per_step,
            "step_seconds": dict(self.step_seconds),
            "hours": self.hours["total"],
            "dollars": self.dollars,
            "kind": self.kind,
            "model": self.model,
            "mesh": dataclasses.asdict(self.mesh),
            "steps": self.steps,
            "step": dict(self.step),
            "flops": dict(self.flops),
            "bytes_per_step": dict(self.bytes_per_step),
            "mfu": dict(self.mfu),
            "hours_by_phase": {name: value for name, value in self.hours.items() if name != "total"},
            "price": dataclasses.asdict(self.price) if self.price else None,
            "stops_scaling": self.stops,
            "notes": list(self.notes),
            **(self.answers.as_json() if self.answers else {}),
            **({"probes": dataclasses.asdict(self.probes)} if self.probes else {}),
            **({"judges": {name: dict(one) for name, one in self.judges.items()}} if self.judges else {}),
        }


def lora_of(settings: config.TrainConfig) -> configs.LoraConfig | None:
    """The adapters of a training."""
    lora = settings.lora
    return configs.LoraConfig(lora.rank, lora.alpha, lora.dropout) if lora.rank else None


def train(
    settings: config.TrainConfig,
    model: family.Config,
    topology: chips.Topology,
    work: work_lib.Work,
    *,
    name: str = "",
    price: flops.Number | None = None,
    measured: Measured | None = None,
) -> Estimate:
    """Plan a training run. work: of this config on the row shards of `traffic.mesh`.

    Raises:
      UserError: the mesh does not fit the topology, or the rematerialisation policy is unknown.
    """
    shape, lora, remat = traffic.mesh(settings.mesh, topology), lora_of(settings), flops.policy(settings.run.remat)
    formats, sizes = _formats(settings.precision), flops.sizes(model, lora)
    needed = flops.training(model, lora, work.tokens, work.squares, work.units)
    done = flops.training(model, lora, work.computed, work.computed_squares, work.unit_room)
    done += flops.recomputed(model, lora, remat, work.computed, work.computed_squares)
    own = work.computed / shape.row_shards
    load = traffic.Load(sizes, lora is not None, own, work.micro, formats.compute, formats.params)
    moved = traffic.training(model.text, load, shape, topology, remat)
    buffers = _buffers(settings, model, topology, shape, formats, work)
    per_chip, notes = buffers.gib(), work.assumed
    if measured is not None:
        per_chip, moved, notes = measured.gib(), measured.moved(moved), (*notes, measured.source)
    host = _on_host(model, remat, work, shape, formats) * topology.chip.devices / memory.GIB
    if host:
        per_chip = {**per_chip, "host_gib": host}
    if settings.run.export != "none":
        exported = memory.export(buffers, topology.chip.devices)
        per_chip = _with_export(per_chip, exported, memory.export_host(model, lora), topology)
    time = roofline.seconds(done, moved, topology)
    stored = 3.0 * formats.params * (sizes.projector + (sizes.adapters if lora else sizes.text))
    compiling = measured.compile_seconds if measured else work_lib.assumptions()["time"]["compile_seconds"]
    hours = _hours(settings, model, topology, work, time.expected, stored, compiling)
    cost = prices.get(topology.chip.name, price)
    return Estimate(
        kind="train",
        model=name,
        topology=topology,
        mesh=shape,
        per_chip=per_chip,
        fits=(measured is None or measured.fits) and fits(per_chip, topology.chip),
        flops_per_step=needed.total,
        flops={**dataclasses.asdict(needed), "computed": done.total},
        step_seconds={**dataclasses.asdict(time), **_range(time.expected, topology.chip, pictures=work.pictures > 0)},
        bytes_per_step=dataclasses.asdict(moved),
        mfu=_mfu(needed.total, time.expected, topology, pictures=work.pictures > 0),
        steps=work.steps,
        hours=hours,
        dollars=None if cost is None else cost.dollars * topology.chips * hours["total"],
        price=cost,
        step=_step(work),
        stops=_stops(work, shape, time),
        notes=notes,
    )


def fits(per_chip: Mapping[str, flops.Number], chip: chips.Chip) -> bool:
    """Whether a chip, and its share of the host's memory, has room for all that is needed at a time."""
    return (
        per_chip["peak_gib"] <= chip.usable_gib
        and per_chip.get("host_gib", 0.0) <= HOST_SHARE * chip.host_gib
        and per_chip.get("export_host_gib", 0.0) <= (1 - HOST_SHARE) * chip.host_gib
    )


def _with_export(
    per_chip: Mapping[str, flops.Number],
    exported: memory.Memory,
    on_host: flops.Number,
    topology: chips.Topology,
) -> dict[str, flops.Number]:
    """`per_chip` with the memory for writing the tuned model after the last step, which can be the peak."""
    size, host = exported.peak / memory.GIB, on_host * topology.hosts / topology.chips / memory.GIB
    return {**per_chip, "peak_gib": max(per_chip["peak_gib"], size), "export_gib": size, "export_host_gib": host}


def _formats(precision: config.PrecisionSettings) -> memory.Formats:
    size = traffic.BYTES
    return memory.Formats(size[precision.compute], size[precision.params], size[precision.frozen])


def _buffers(
    settings: config.TrainConfig,
    model: family.Config,
    topology: chips.Topology,
    shape: traffic.Mesh,
    formats: memory.Formats,
    work: work_lib.Work,
) -> memory.Memory:
    one = memory.training(
        model,
        lora_of(settings),
        shape,
        formats,
        flops.policy(settings.run.remat),
        rows=work.rows,
        row_len=work.row_len,
        units=work.room.units,
        micro=work.micro,
        chunk=settings.run.loss_chunk,
    )
    return one.times(topology.chip.devices)


def _on_host(
    model: family.Config,
    remat: flops.Remat,
    work: work_lib.Work,
    shape: traffic.Mesh,
    formats: memory.Formats,
) -> flops.Number:
    """Bytes that a device offloads to its host's memory."""
    tokens = work.rows * work.row_len / shape.row_shards
    return tokens * model.text.num_layers * flops.per_token(model.text, remat.away) * formats.compute / shape.tensor


def _step(work: work_lib.Work) -> dict[str, flops.Number]:
    return {
        "conversations": work.conversations,
        "tokens": work.tokens,
        "computed_tokens": work.computed,
        "pictures": work.pictures,
        "rows": work.rows * work.micro,
        "row_len": work.row_len,
        "micro_batches": work.micro,
    }


def _range(expected: flops.Number, chip: chips.Chip, *, pictures: bool) -> dict[str, flops.Number]:
    """Seconds at the ends of the range that the back-test, and published runs with pictures, leave open."""
    wide = 1 + roofline.error(chip)
    return {
        "low": expected / wide,
        "high": expected * wide / (work_lib.assumptions()["pictures"]["share"] if pictures else 1.0),
    }


def _mfu(
    needed: flops.Number, expected: flops.Number, topology: chips.Topology, *, pictures: bool
) -> dict[str, flops.Number]:
    share = needed / (topology.chips * topology.chip.flops)
    ends = _range(expected, topology.chip, pictures=pictures)
    found = {"expected": share / expected, "low": share / ends["high"], "high": share / ends["low"]}
    published = backtest.mfu_range(topology.chip.name)
    return found | ({} if published is None else {"published_low": published[0], "published_high": published[1]})


def _hours(
    settings: config.TrainConfig,
    model: family.Config,
    topology: chips.Topology,
    work: work_lib.Work,
    step: flops.Number,
    stored: flops.Number,
    compiling: flops.Number,
) -> dict[str, flops.Number]:
    """Hours by phase. stored: bytes of a checkpoint; compiling: seconds per shape."""
    known = work_lib.assumptions()["time"]
    sizes = flops.sizes(model)
    whole = 2.0 * (sizes.text + sizes.tower + sizes.projector)  # as bf16 files
    saves = 1 + (work.steps // settings.run.save_every if settings.run.save_every else 0)
    exported = whole if settings.run.export != "none" else 0.0
    seconds = {
        "start": known["start_seconds"],
        "load": whole / (known["read_gbps"] * 1e9),
        "compile": compiling * work.shapes,
        "steps": step * work.steps,
        "save": (saves * stored / topology.hosts + exported) / (known["write_gbps"] * 1e9),
    }
    return {name: value / 3600 for name, value in seconds.items()} | {"total": sum(seconds.values()) / 3600}


def _stops(work: work_lib.Work, shape: traffic.Mesh, time: roofline.Seconds) -> str:
    """Why more chips would not help the recipe's global batch; "" if they would."""
    if work.conversations < shape.row_shards:
        return (
            f"{work.conversations} conversations a step are fewer than {shape.row_shards} row shards: the others"
            " compute padding"
        )
    products = time.expected - time.update - time.exposed
    if time.exposed > 0.1 * products:
        return (
            f"collectives take {time.exposed:.2f} s a step beyond the {products:.2f} s of products that could hide them"
        )
    return ""
