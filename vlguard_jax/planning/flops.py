"""Parameters and floating-point operations by formula.

A matrix product of T rows with an [i, o] matrix is 2 T i o operations; causal attention over a sequence of t tokens 2
t^2 H E a layer (scores and values, each 2 t^2 H E, half of it masked); the tower attends without a mask. Norms,
rotations and activations are left out, as everywhere where MFU is quoted. Backward costs twice the forward; what is
frozen has no weight gradient and costs once.
"""

from __future__ import annotations

import dataclasses

from vlguard_jax import errors
from vlguard_jax.models import config as model_config

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


def sizes(model: model_config.LlavaConfig, lora: model_config.LoraConfig | None = None) -> Sizes:
    """Count the parameters of a model, with adapters if `lora` is given."""
    t = model.text
    matrices = linears(t)
    return Sizes(
        layer=sum(i * o for i, o in matrices.values()),
        layers=t.num_layers,
        norms=(2 * t.num_layers + 1) * t.width,
        embed=t.vocab_size * t.width,
        head=0 if t.tie_embeddings else t.vocab_size * t.width,
        projector=_projector(model),
        tower=_tower(model.vision) if model.vision else 0,
        adapters=lora.rank * t.num_layers * sum(sum(matrices[name]) for name in lora.targets) if lora else 0,
    )


def linears(text: model_config.TextConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the matrices of a decoder layer."""
    d, inner, kv, f = text.width, text.num_heads * text.head_width, text.num_kv_heads * text.head_width, text.mlp_width
    return {"q": (d, inner), "k": (d, kv), "v": (d, kv), "o": (inner, d), "gate": (d, f), "up": (d, f), "down": (f, d)}


def _projector(model: model_config.LlavaConfig) -> int:
    if model.vision is None or model.projector is None:
        return 0
    first = (model.vision.width + 1) * model.text.width
    return first + ((model.text.width + 1) * model.text.width if model.projector == "mlp2x_gelu" else 0)


def _tower(v: model_config.VisionConfig) -> int:
    layer = 4 * (v.width + 1) * v.width + (v.width + 1) * v.mlp_width + (v.mlp_width + 1) * v.width + 4 * v.width
    return v.num_layers * layer + 3 * v.patch_size**2 * v.width + v.width + (v.num_patches + 1) * v.width + 4 * v.width


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations by the kind of kernel that does them."""

    linear: Number = 0.0
    attention: Number = 0.0
    head: Number = 0.0
    projector: Number = 0.0
    tower: Number = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return float(sum(dataclasses.astuple(self)))

    def __add__(self, other: Flops) -> Flops:
        return Flops(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


def forward(model: model_config.LlavaConfig, tokens: Number, squares: Number, pictures: Number) -> Flops:
    """One forward pass. squares: sum of the squared lengths of the sequences that make up `tokens`."""
    t = model.text
    return Flops(
        linear=2.0 * sizes(model).layer * t.num_layers * tokens,
        attention=2.0 * squares * t.num_heads * t.head_width * t.num_layers,
        head=2.0 * t.width * t.vocab_size * tokens,
        projector=2.0 * _projector_matrices(model) * pictures,
        tower=tower_forward(model.vision) * pictures if model.vision else 0.0,
    )


def _projector_matrices(model: model_config.LlavaConfig) -> float:
    if model.vision is None or model.projector is None:
        return 0.0
    second = model.text.width**2 if model.projector == "mlp2x_gelu" else 0
    return float(model.vision.num_patches * (model.vision.width * model.text.width + second))


def tower_forward(v: model_config.VisionConfig) -> float:
    """The tower on one picture, up to the layer whose features are used."""
    layers = v.feature_layer if v.feature_layer >= 0 else v.num_layers + 1 + v.feature_layer
    seen = v.num_patches + 1
    matrices = 2.0 * seen * (4 * v.width**2 + 2 * v.width * v.mlp_width)
    attention = 4.0 * seen**2 * v.width
    return layers * (matrices + attention) + 2.0 * v.num_patches * 3 * v.patch_size**2 * v.width


def training(
    model: model_config.LlavaConfig,
    lora: model_config.LoraConfig | None,
    tokens: Number,
    squares: Number,
    pictures: Number,
) -> Flops:
    """Forward and backward, without recomputation: the model FLOPs that MFU counts."""
    once = forward(model, tokens, squares, pictures)
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
    """A rematerialisation policy. again: matrices of a layer that are computed again in the backward pass; attention:
    whether attention is;
    kept: what each token keeps on the device in each layer, in multiples of (width, heads, kv heads, mlp width); away:
    the same on the host."""

    again: tuple[str, ...]
    attention: bool
    kept: tuple[int, int, int, int]
    away: tuple[int, int, int, int] = (0, 0, 0, 0)


# The last product of a layer is never computed again: nothing in the layer's own backward pass needs it.
POLICIES = {
    "none": Remat((), False, (4, 2, 2, 4)),
    "minimal_with_context": Remat((), False, (2, 2, 2, 2)),
    "minimal": Remat((), True, (2, 1, 2, 2)),
    "offload": Remat(("gate", "up"), True, (0, 0, 0, 0), (2, 1, 2, 0)),
    "full": Remat(("q", "k", "v", "o", "gate", "up"), True, (1, 0, 0, 0)),
}


def policy(name: str) -> Remat:
    """The policy of that name.

    Raises:
      UserError: the estimate does not know it.
    """
    if name not in POLICIES:
        raise errors.UserError(
            f"config.run.remat={name!r}: the estimate knows no such policy{errors.nearest(name, POLICIES)}"
        )
    return POLICIES[name]


def per_token(text: model_config.TextConfig, multiples: tuple[int, int, int, int]) -> int:
    """Numbers that a token keeps in a layer, from multiples of (width, heads, kv heads, mlp width)."""
    each = (text.width, text.num_heads * text.head_width, text.num_kv_heads * text.head_width, text.mlp_width)
    return sum(count * size for count, size in zip(multiples, each, strict=True))


def recomputed(
    model: model_config.LlavaConfig, lora: model_config.LoraConfig | None, remat: Remat, tokens: Number, squares: Number
) -> Flops:
    """What the backward pass computes again."""
    matrices = linears(model.text)
    weights = sum(matrices[name][0] * matrices[name][1] for name in remat.again)
    weights += sum(lora.rank * sum(matrices[name]) for name in remat.again if name in lora.targets) if lora else 0
    attention = forward(model, 0, squares, 0).attention if remat.attention else 0.0
    return Flops(linear=2.0 * weights * model.text.num_layers * tokens, attention=attention)
