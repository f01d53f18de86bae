"""How a network runs on the devices; passed to it, so that it knows neither mesh nor kernels."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Int

from vlguard_jax.families.blocks import attention

Constraint = Callable[[Array], Array]
ByRows = Callable[..., Any]
PutPictures = Callable[[Array, Array, Array], Array]
LAYER_INPUT = "layer_input"

# What is kept of a layer for the backward pass; the rest is recomputed. full: its input. offload: its input, in the
# host's memory. minimal: its input and the outputs of its matrix products (not the attention's). "none" (not in the
# table): everything.
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def _as_is(x: Array) -> Array:
    return x


def directly(function: Callable[..., Any], shared: Any, *rows: Any) -> Any:
    """`Execution.by_rows` on one device."""
    return function(shared, *rows)


def put_pictures(
    features: Float[Array, "S D"], slot: Int[Array, "B T"], x: Float[Array, "B T D"]
) -> Float[Array, "B T D"]:
    """x with the pictures' features where slot >= 0."""
    return jnp.where((slot >= 0)[..., None], features[jnp.maximum(slot, 0)], x)


@dataclasses.dataclass(frozen=True)
class Execution:
    """Affects only rounding, speed and memory.

    remat: what the backward pass keeps of a layer, a name in REMAT or "none". unroll: layers per iteration of the scan.
    constrain_rows: shards [B, ...] like the rows of a batch. by_rows: (function, shared, *arrays [B, ...]) ->
    function(shared, *arrays) on each device's rows; the arrays may be trees. put_pictures: as the function of that
    name, for row shards with their own pictures. gathered: whether weights are divided over devices, so that a prefill
    gathers those of each layer.
    """

    self_attention: attention.SelfAttention = attention.causal_xla
    remat: str = "none"
    unroll: int = 1
    constrain_rows: Constraint = _as_is
    by_rows: ByRows = directly
    put_pictures: PutPictures = put_pictures
    gathered: bool = False
