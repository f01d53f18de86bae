"""Parameters and floating-point operations by formula.

A matrix product of T rows with an [i, o] matrix is 2 T i o operations; causal attention over a sequence of t tokens 2
t^2 H E a layer (scores and values, each 2 t^2 H E, half of it masked); the tower attends without a mask. Norms,
rotations and activations are not counted, as is usual for MFU. The backward pass costs twice the forward pass, and only
once for frozen parameters, which have no weight gradient.
"""

from __future__ import annotations

import dataclasses
import math

from vlguard_jax import errors
from vlguard_jax.families import family
from vlguard_jax.families import parameters
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs

Number = int | float


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Numbers of parameters. layer: of one decoder layer's matrices; adapters: LoRA, all layers."""

    layer: int
    layers: int
    norms: int
    embed: int
    head: int
    projector: int
    tower: int
    adapters: int

    @property
    def text(self) -> int:
        """The decoder, embedding and head included."""
        return self.layer * self.layers + self.norms + self.embed + self.head


def sizes(model: family.Config, lora: configs.LoraConfig | None = None) -> Sizes:
    """Count the parameters of a model, with adapters if `lora` is given."""
    counts: dict[str, int] = dict.fromkeys(parameters.PARTS, 0)
    known = table.parameters_of(model, lora)
    for one in known.values():
        counts[one.part] += math.prod(one.shape)
    layer = sum(i * o for i, o in linears(model.text).values())
    embed = math.prod(known[parameters.EMBEDDING].shape)
    return Sizes(
        layer=layer,
        layers=model.text.num_layers,
        norms=counts["text"] - embed - layer * model.text.num_layers,
        embed=embed,
        head=counts["head"],
        projector=counts["projector"],
        tower=counts["vision"],
        adapters=counts["adapter"],
    )


def linears(text: configs.TextConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the matrices of a decoder layer."""
    return parameters.linears(text)


def tower(model: family.Config) -> family.Tower | None:
    """Cost of one unit of a picture; None for a language model."""
    sees = table.of(model).pictures
    return sees.tower(model) if sees else None


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations by kind of kernel."""

    linear: Number = 0.0
    attention: Number = 0.0
    head: Number = 0.0
    projector: Number = 0.0
    tower: Number = 0.0

    @property
    def total(self) -> float:
        """All operations."""
        return float(sum(dataclasses.astuple(self)))

    def __add__(self, other: Flops) -> Flops:
        return Flops(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


def forward(model: family.Config, tokens: Number, squares: Number, units: Number) -> Flops:
    """One forward pass. squares: sum of the squared lengths of the sequences in `tokens`. units: of the tower, each a
    picture or a tile."""
    t, each = model.text, tower(model)
    return Flops(
        linear=2.0 * sizes(model).layer * t.num_layers * tokens,
        attention=2.0 * squares * t.num_heads * t.head_width * t.num_layers,
        head=2.0 * t.width * t.vocab_size * tokens,
        projector=each.projector_flops * units if each else 0.0,
        tower=each.flops * units if each else 0.0,
    )


def training(
    model: family.Config,
    lora: configs.LoraConfig | None,
    tokens: Number,
    squares: Number,
    units: Number,
) -> Flops:
    """Forward and backward, without recomputation: the model FLOPs that MFU counts."""
    once = forward(model, tokens, squares, units)
    adapters = 2.0 * sizes(model, lora).adapters * tokens
    return Flops(
        linear=(2.0 if lora else 3.0) * once.linear + 3.0 * adapters,
        attention=3.0 * once.attention,
        head=(2.0 if lora else 3.0) * once.head,
        projector=3.0 * once.projector,
        tower=once.tower,
    )


@dataclasses.dataclass(frozen=True)
class Remat:
    """A rematerialisation policy. again: products of a layer that the backward pass recomputes; attention: whether it
    recomputes attention; kept: numbers that each token keeps on the device in each layer, in multiples of (width,
    heads, kv heads, mlp width); away: the same on the host."""

    again: tuple[str, ...]
    attention: bool
    kept: tuple[int, int, int, int]
    away: tuple[int, int, int, int] = (0, 0, 0, 0)


# The last product of a layer is never recomputed: the layer's own backward pass does not need it.
POLICIES = {
    "none": Remat((), False, (4, 2, 2, 4)),
    "minimal_with_context": Remat((), False, (2, 2, 2, 2)),
    "minimal": Remat((), True, (2, 1, 2, 2)),
    "offload": Remat(("gate_proj", "up_proj"), True, (0, 0, 0, 0), (2, 1, 2, 0)),
    "full": Remat(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"), True, (1, 0, 0, 0)),
}


def policy(name: str) -> Remat:
    """The policy of that name.

    Raises:
      UserError: the estimate has no such policy.
    """
    if name not in POLICIES:
        raise errors.UserError(
            f"config.run.remat={name!r}: the estimate knows no such policy{errors.nearest(name, POLICIES)}"
        )
    return POLICIES[name]


def per_token(text: configs.TextConfig, multiples: tuple[int, int, int, int]) -> int:
    """Numbers per token and layer, from multiples of (width, heads, kv heads, mlp width)."""
    each = (text.width, text.num_heads * text.head_width, text.num_kv_heads * text.head_width, text.mlp_width)
    return sum(count * size for count, size in zip(multiples, each, strict=True))


def recomputed(
    model: family.Config, lora: configs.LoraConfig | None, remat: Remat, tokens: Number, squares: Number
) -> Flops:
    """Operations that the backward pass recomputes."""
    matrices = linears(model.text)
    weights = sum(matrices[name][0] * matrices[name][1] for name in remat.again)
    weights += sum(lora.rank * sum(matrices[name]) for name in remat.again if name in lora.targets) if lora else 0
    attention = forward(model, 0, squares, 0).attention if remat.attention else 0.0
    return Flops(linear=2.0 * weights * model.text.num_layers * tokens, attention=attention)
