"""The plan of an evaluation: prompts are read a few at a time, and their answers decoded in slots, token by token."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math

from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.generation import engine
from vlguard_jax.generation import lengths
from vlguard_jax.generation import memory as engine_memory
from vlguard_jax.generation import reuse
from vlguard_jax.planning import answering
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import flops
from vlguard_jax.planning import judged
from vlguard_jax.planning import memory
from vlguard_jax.planning import prices
from vlguard_jax.planning import roofline
from vlguard_jax.planning import traffic
from vlguard_jax.planning import work as work_lib
from vlguard_jax.safety.benchmarks import registry as benchmarks


@dataclasses.dataclass(frozen=True)
class Asked:
    """prompts: in all, as the engine reads and pads them: `prefix` tokens through the picture (0 without one), and
    `rest`. slots: over all devices, with a cache of `length` tokens each. together: prefixes, or prompts without one,
    that are read together; kept: prefixes on a device; features: rows of theirs that are kept, too; pictures: of those
    read together; room: for them, in each row shard."""

    prompts: int
    prefix: int
    rest: int
    slots: int
    length: int
    together: int
    kept: int
    features: int
    pictures: int
    room: family.Room

    @property
    def prompt(self) -> int:
        """Tokens of a prompt, padded."""
        return self.prefix + self.rest


def asked(settings: config.EvalConfig, model: family.Config, topology: chips.Topology, text_prompt: int = 0) -> Asked:
    """The benchmark's prompts, as the engine reads them on the topology. text_prompt: their tokens without pictures; 0:
    as assumed for a benchmark's questions.

    Raises:
      UserError: the mesh does not fit the topology.
    """
    known, benchmark = work_lib.assumptions()["evaluation"], settings.benchmark
    sees, asks = table.of(model).pictures, benchmarks.get(benchmark.name)
    shows = asks.pictures and sees is not None and benchmark.pictures != "none"
    size = types.Size(*work_lib.assumptions()["lengths"]["picture_pixels"])
    one = sees.extents(model, [size])[0] if sees and shows else types.Extent(0, 0)
    subsets = benchmark.subsets or tuple(asks.metrics)
    counts = [asks.counts.get(subset, known["questions"]) for subset in subsets]
    shape = traffic.mesh(settings.mesh, topology)
    prefix = lengths.padded(known["before_picture"] + one.slots) if shows else 0
    rest = lengths.padded((text_prompt or known["text_prompt"]) - (known["before_picture"] if shows else 0))
    width, most = -(-settings.decode.batch_size // shape.row_shards), settings.decode.reuse_gib * memory.GIB
    each, read = lengths.slots(width, prefix + rest), prefix or rest
    read = lengths.group(lengths.slots(width, read), read)
    place, numbers = _place(settings, model, topology), model.text.width * _width(settings, topology)
    held = engine.WINDOW * width
    return Asked(
        prompts=sum(min(count, benchmark.limit or count) for count in counts),
        prefix=prefix,
        rest=rest,
        slots=each * shape.row_shards,
        length=lengths.room(prefix + rest) + settings.decode.max_new_tokens,
        together=read * shape.row_shards,
        kept=reuse.rows(most, place * lengths.room(prefix), held) if shows else 0,
        features=reuse.features(most, numbers, one.slots * read, held * one.slots * read) if shows else 0,
        pictures=read * shape.row_shards if shows else 0,
        room=family.Room(read * one.units, read * one.slots),
    )


def _place(settings: config.EvalConfig, model: family.Config, topology: chips.Topology) -> int:
    """Bytes of a place of the cache on a device."""
    number = 1 if settings.decode.kv_cache == "int8" else _width(settings, topology)
    return engine_memory.of_token(model.text, number, traffic.mesh(settings.mesh, topology).tensor)


def evaluate(
    settings: config.EvalConfig,
    model: family.Config,
    topology: chips.Topology,
    *,
    name: str = "",
    price: flops.Number | None = None,
    measured: tuple[estimate.Measured, estimate.Measured] | None = None,
    text_prompt: int = 0,
) -> estimate.Estimate:
    """Plan an evaluation: prompts of one shape, every answer as long as allowed, and what is expected. measured: the
    compiler's figures for (prefill, decode). text_prompt: see `asked`.

    Raises:
      UserError: the mesh does not fit the topology.
    """
    shape, b = traffic.mesh(settings.mesh, topology), _width(settings, topology)
    of, new = asked(settings, model, topology, text_prompt), settings.decode.max_new_tokens
    prompts, prompt, slots = of.prompts, of.prompt, of.slots
    both = measured or memories(settings, model, topology, text_prompt)
    kinds = [one.gib() for one in both]
    per_chip = max(kinds, key=lambda one: one["peak_gib"])
    token = _place(settings, model, topology)
    fit = answering.slots_fit(topology, shape, token * of.length, slots, kinds)
    units = of.room.units * shape.row_shards
    read = flops.forward(model, of.together * prompt, of.together * float(prompt) ** 2, units)
    read = dataclasses.replace(read, head=read.head / prompt)  # of the last position only
    first, each = _generation(model, shape, topology, read, b, of, token, measured)
    rounds, reading = -(-prompts // slots), -(-prompts // of.together) * first.expected
    hours = _hours(model, reading + rounds * new * each.expected, measured)
    cost = prices.get(topology.chip.name, price)
    found = estimate.Estimate(
        kind="evaluate",
        model=name,
        topology=topology,
        mesh=shape,
        per_chip=per_chip,
        fits=slots <= fit and all(one.fits for one in measured or ()),
        flops_per_step=read.total,
        flops=dataclasses.asdict(read),
        step_seconds={
            "prefill": first.expected,
            "decode": each.expected,
            "prefill_compute": first.compute,
            "decode_hbm": each.hbm,
        },
        bytes_per_step={"decode_hbm": each.hbm * topology.chip.hbm_gbps * 1e9},
        mfu={"prefill": read.total / (topology.chips * topology.chip.flops * first.expected)},
        steps=rounds * new,
        hours=hours,
        dollars=_dollars(cost, topology, hours),
        price=cost,
        step={"prompts": prompts, "slots": slots, "together": of.together, "prompt": prompt, "new": new},
        stops="" if prompts >= slots else f"{prompts} prompts are fewer than the {slots} slots",
        notes=(_assumed(of, settings), *judged.notes(settings), *(one.source for one in measured or ())),
    )
    return dataclasses.replace(found, answers=_expected(found, settings, model, fit, reading, measured))


def _assumed(of: Asked, settings: config.EvalConfig) -> str:
    source = work_lib.assumptions()["evaluation"]["new_tokens_source"]
    mean = answering.mean(settings.decode)
    return f"{of.prompts:,} prompts of {of.prompt} tokens; a mean answer of {mean} new ones is {source}"


def _expected(
    found: estimate.Estimate,
    settings: config.EvalConfig,
    model: family.Config,
    fit: int,
    reading: flops.Number,
    measured: tuple[estimate.Measured, estimate.Measured] | None,
) -> answering.Answers:
    """Answers of the mean length, where `found` has the longest. reading: seconds of all prompts."""
    prompts, new = int(found.step["prompts"]), answering.mean(settings.decode)
    steps = answering.steps(prompts, int(found.step["slots"]), new, settings.decode.max_new_tokens)
    busy = reading + steps * found.step_seconds["decode"]
    hours = _hours(model, busy, measured)
    return answering.Answers(
        slots_fit=fit,
        new=new,
        steps=math.ceil(steps),
        answers_per_second=prompts / busy,
        tokens_per_second=prompts * new / busy,
        hours=hours,
        dollars=_dollars(found.price, found.topology, hours),
    )


def fuller(settings: config.EvalConfig, model: family.Config, found: estimate.Estimate) -> answering.Answers | None:
    """The answers of a plan, with their speed in all slots that fit."""
    answers, shards, step = found.answers, found.mesh.row_shards, found.step
    if answers is None or not found.fits:
        return answers
    slots = min(answers.slots_fit, -(-int(step["prompts"]) // shards) * shards)
    if slots <= step["slots"]:
        return answers
    decode = answering.fuller(settings.decode, slots, int(step["prompt"]), shards)
    made = evaluate(dataclasses.replace(settings, decode=decode), model, found.topology)
    assert made.answers is not None
    return dataclasses.replace(answers, fuller=(decode, made.answers.answers_per_second))


def _dollars(
    cost: prices.Price | None, topology: chips.Topology, hours: Mapping[str, flops.Number]
) -> flops.Number | None:
    return None if cost is None else cost.dollars * topology.chips * hours["total"]


def _hours(
    model: family.Config,
    steps: flops.Number,
    measured: tuple[estimate.Measured, estimate.Measured] | None,
) -> dict[str, flops.Number]:
    """Hours by phase, and in total. steps: seconds of all batches."""
    time, weights = work_lib.assumptions()["time"], flops.sizes(model)
    half = time["compile_seconds"] / 2  # no backward pass
    seconds = {
        "start": time["start_seconds"],
        "load": 2.0 * (weights.text + weights.tower + weights.projector) / (time["read_gbps"] * 1e9),
        "compile": sum(one.compile_seconds for one in measured) if measured else half,
        "steps": steps,
    }
    return {phase: value / 3600 for phase, value in seconds.items()} | {"total": sum(seconds.values()) / 3600}


def memories(
    settings: config.EvalConfig, model: family.Config, topology: chips.Topology, text_prompt: int = 0
) -> tuple[memory.Memory, memory.Memory]:
    """Memory of (prefill, decode) on one chip, by formula.

    Raises:
      UserError: the mesh does not fit the topology.
    """
    of, shape = asked(settings, model, topology, text_prompt), traffic.mesh(settings.mesh, topology)
    reading, writing = memory.evaluation(
        model,
        shape,
        _width(settings, topology),
        slots=of.slots,
        length=of.length,
        together=of.together,
        prompt=of.prefix or of.rest,
        units=of.room.units,
        place=_place(settings, model, topology),
        kept=of.kept * lengths.room(of.prefix) * _place(settings, model, topology)
        + of.features * model.text.width * _width(settings, topology),
    )
    return reading.times(topology.chip.devices), writing.times(topology.chip.devices)


def _width(settings: config.EvalConfig, topology: chips.Topology) -> int:
    """Bytes per number."""
    return traffic.BYTES[config.on_backend(settings.precision, topology.chip.kind)]


def _generation(
    model: family.Config,
    shape: traffic.Mesh,
    topology: chips.Topology,
    read: flops.Flops,
    b: int,
    of: Asked,
    place: int,
    measured: tuple[estimate.Measured, estimate.Measured] | None,
) -> tuple[roofline.Seconds, roofline.Seconds]:
    """Times of a prefill and of decoding one token in every slot, whose cache is read whole. place: bytes of a token in
    it, on a device."""
    s, text = flops.sizes(model), model.text
    per_chip = topology.chip.devices
    own, read_own = of.slots / shape.row_shards, of.together / shape.row_shards
    weights = (s.text + s.projector) * b / shape.tensor * per_chip
    others = (shape.fsdp - 1) / shape.fsdp
    gathered = weights * others
    # For a token XLA leaves the weights where they are, if what all rows' products make of them is smaller: partial
    # sums, all-reduced. The 7B step for v5e:2x2 was compiled so (0.06 GB over the links in place of 9.9).
    made = text.num_layers * sum(o for _, o in flops.linears(text).values()) + text.vocab_size
    summed = 2 * made * b / shape.tensor * of.slots / shape.data * others * per_chip
    found = measured[1].links if measured else None
    stay = (summed if found is None else found) < gathered
    crosses = topology.domains > 1 and shape.data % topology.domains != 0
    share = topology.domains / topology.chips if crosses else 0.0
    known = dataclasses.replace(roofline.constants(), hbm=work_lib.assumptions()["evaluation"]["stream"])
    sums = 2 * text.num_layers * text.width * b * 2 * (shape.tensor - 1) / shape.tensor * per_chip
    cached = place * of.length * per_chip
    decoded = flops.forward(model, of.slots, of.slots * float(of.length), 0)
    first = traffic.Traffic(gathered + sums * read_own * of.prompt, gathered * share, 0.0, weights + cached * read_own)
    links, seen = (summed, weights / shape.fsdp) if stay else (gathered, weights)
    each = traffic.Traffic(links + sums * own, links * share, 0.0, seen + cached * own)
    if measured is not None:
        first, each = measured[0].moved(first), measured[1].moved(each)
    return roofline.seconds(read, first, topology, known), roofline.seconds(decoded, each, topology, known)
