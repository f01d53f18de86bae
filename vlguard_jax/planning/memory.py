"""HBM by kind: what is there for the whole run, and what a step needs in addition.

The compiler decides the second part; these formulas cover its large buffers. The tower and the decoder never peak
together.
"""

from __future__ import annotations

import dataclasses

from vlguard_jax.families import family
from vlguard_jax.families.blocks import configs
from vlguard_jax.parallel import gather
from vlguard_jax.planning import flops
from vlguard_jax.planning import traffic

GIB = 2.0**30
GATHERED = 2  # layers whose matrices are gathered at a time: the current one and the next
AHEAD = 3  # layers of a prefill, which are not in a loop: XLA for TPUs begins the next ones' gathers
TURNED = 3  # a block gathered from all devices, and XLA's buffers for putting its parts together
COPIES = 3  # of a tensor in fp32 on the host that writes it: as gathered, merged or transposed, in the file's format
SLACK = 0.05  # of what a step needs: fragmentation, and small buffers without a formula


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip, by kind.

    weights: trained parameters; frozen: the others, the tower included. gathered: parameters that are whole for a
    moment (two layers, or embedding and head) with their gradients. activations: kept for the backward pass, and those
    of the current layer. logits: one chunk. pictures: the tower's buffers, counted where they exceed the rest of the
    step.
    cache: the KV cache.
    """

    weights: flops.Number = 0.0
    moments: flops.Number = 0.0
    gradients: flops.Number = 0.0
    frozen: flops.Number = 0.0
    gathered: flops.Number = 0.0
    activations: flops.Number = 0.0
    logits: flops.Number = 0.0
    pictures: flops.Number = 0.0
    batch: flops.Number = 0.0
    cache: flops.Number = 0.0

    @property
    def states(self) -> flops.Number:
        """What stays between steps, and the gradients."""
        return self.weights + self.moments + self.gradients + self.frozen

    @property
    def slack(self) -> flops.Number:
        """Slack for the step's own buffers."""
        return SLACK * (self._step + self.batch)

    @property
    def _step(self) -> flops.Number:
        return max(self.gathered + self.activations + self.logits, self.pictures)

    @property
    def peak(self) -> flops.Number:
        """The most in memory at a time."""
        return self.states + self.cache + self.batch + self._step + self.slack

    def gib(self) -> dict[str, flops.Number]:
        """GiB by kind, without zeros."""
        kinds = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {"slack": self.slack}
        return {"peak_gib": self.peak / GIB} | {f"{name}_gib": size / GIB for name, size in kinds.items() if size}

    def times(self, count: int) -> Memory:
        """Memory of a chip of `count` devices."""
        return Memory(*(size * count for size in dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True)
class Formats:
    """Bytes per number."""

    compute: int
    params: int
    frozen: int


def training(
    model: family.Config,
    lora: configs.LoraConfig | None,
    shape: traffic.Mesh,
    formats: Formats,
    remat: flops.Remat,
    *,
    rows: int,
    row_len: int,
    units: flops.Number,
    micro: int,
    chunk: int,
) -> Memory:
    """A training step on one device. rows: of a micro-batch, over all devices; units: of the tower, in one row shard;
    chunk: bytes of logits at a time."""
    s, text = flops.sizes(model, lora), model.text
    shards, b = shape.fsdp * shape.tensor, formats.compute
    trained = s.projector + (s.adapters if lora else s.text)
    own = max(1.0, rows / shape.row_shards) * row_len
    at_work = 1.5 * flops.per_token(text, flops.POLICIES["none"].kept)  # with gradients of about half of it at a time
    kept = flops.per_token(text, remat.kept) * s.layers
    layer_gradient = s.layer if not lora else lora.rank * sum(map(sum, flops.linears(text).values()))
    # with their gradients, the head's in fp32; not beside the layers
    edges = s.embed + s.head if lora else max(2 * s.embed, 3 * s.head)
    return Memory(
        weights=trained * formats.params / shards,
        moments=2 * trained * formats.params / shards,
        gradients=trained * formats.params / shards * (2 if micro > 1 else 1),
        frozen=(s.text * formats.frozen / shards if lora else 0.0) + s.tower * formats.frozen,
        gathered=max(GATHERED * s.layer + layer_gradient, edges) * b / shape.tensor,
        activations=own * (kept + at_work / shape.tensor) * b,
        logits=3 * min(chunk, own * text.vocab_size * 4) / shape.tensor,
        pictures=_tower(model, units, b),
        batch=own * 5 * 4 + _pixels(model, units, b),
    )


def _tower(model: family.Config, units: flops.Number, b: int) -> flops.Number:
    """Buffers of one tower layer: attention scores and weights in fp32, projections and the MLP's hidden layer."""
    each = flops.tower(model)
    return units * (each.scores * (4 + b) + each.numbers * b) if each else 0.0


def _pixels(model: family.Config, units: flops.Number, b: int) -> flops.Number:
    """Pictures as uint8 and as floats, and their features in the decoder's width, with a gradient."""
    each = flops.tower(model)
    return units * (each.pixels * (1 + b) + 2 * each.features * model.text.width * b) if each else 0.0


def export(step: Memory, devices: int = 1) -> Memory:
    """Writing the tuned model after the last step: weights and frozen parameters are in memory, and a gathered block.
    devices: that `step` is of."""
    return Memory(weights=step.weights, frozen=step.frozen, gathered=TURNED * gather.BLOCK * devices)


def export_host(model: family.Config, lora: configs.LoraConfig | None) -> flops.Number:
    """Bytes that writing the tuned model takes on the host of process 0: the frozen parameters, kept as loaded (two
    bytes per number, as models are published), and the current tensor."""
    s = flops.sizes(model, lora)
    largest = max(s.embed, s.head, *(i * o for i, o in flops.linears(model.text).values()))
    return 2 * (s.tower + (s.text if lora else 0)) + COPIES * 4 * largest


def evaluation(
    model: family.Config,
    shape: traffic.Mesh,
    compute: int,
    *,
    slots: int,
    length: int,
    together: int,
    prompt: int,
    units: flops.Number,
    place: flops.Number,
    kept: flops.Number,
) -> tuple[Memory, Memory]:
    """(prefill, decode) on one device, with `slots` slots over all devices, whose KV cache has `length` places each;
    `together` prompts of `prompt` tokens, or so much of them as ends with the picture, are read at a time. units: of
    the tower, on one device; place: bytes of a token in
    the cache there, kept: of prefixes and features."""
    s, text = flops.sizes(model), model.text
    shards, own = shape.fsdp * shape.tensor, max(1.0, slots / shape.row_shards)
    read = max(1.0, together / shape.row_shards)
    whole = compute / shape.tensor if shape.fsdp > 1 else 0.0
    weights = ((s.text + s.projector) / shards + s.tower) * compute
    both = {"weights": weights, "cache": own * length * place + kept}
    at_work = flops.per_token(text, flops.POLICIES["none"].kept) * compute / shape.tensor
    reading = Memory(
        **both,
        gathered=(AHEAD * s.layer + s.head) * whole,
        activations=read * prompt * (at_work + place),
        logits=read * text.vocab_size * 4,
        pictures=_tower(model, units, compute),
        batch=_pixels(model, units, compute),
    )
    scores = text.num_heads * length * 6 / shape.tensor
    edge = max(s.head, *(i * o for i, o in flops.linears(text).values())) * whole  # a matrix at a time
    return reading, Memory(
        **both, gathered=edge, activations=own * (at_work + scores), logits=2 * own * text.vocab_size * 4
    )
