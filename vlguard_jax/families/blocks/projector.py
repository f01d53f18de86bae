"""From vision features to decoder width (reference: llava multimodal_projector/builder.py)."""

from __future__ import annotations

from flax import nnx
import jax
from jax import Array
from jaxtyping import Float

from vlguard_jax.families.blocks import layers

KINDS = ("mlp2x_gelu", "linear")


class Projector(nnx.Module):
    """`linear`: one linear layer. `mlp2x_gelu`: linear, exact (erf) GELU, linear. All with bias."""

    def __init__(self, kind: str, in_width: int, out_width: int, rngs: nnx.Rngs):
        if kind not in KINDS:
            raise ValueError(f"unknown projector {kind!r}; known: {', '.join(KINDS)}")
        self.fc1 = layers.Linear(in_width, out_width, use_bias=True, rngs=rngs)
        self.fc2 = layers.Linear(out_width, out_width, use_bias=True, rngs=rngs) if kind == "mlp2x_gelu" else None

    def __call__(self, features: Float[Array, "N P F"]) -> Float[Array, "N P D"]:
        x = self.fc1(features)
        return x if self.fc2 is None else self.fc2(jax.nn.gelu(x, approximate=False))
