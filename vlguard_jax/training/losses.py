"""The loss: one function `(model, params, batch, extras) -> (weighted sum, metrics)` named in the config.

The host puts every normalisation into `batch.loss_weight` (data/plan.py), so a loss is a plain weighted sum, and its
sum over micro-batches, rows and devices is the recipe's loss. Your own objective is one function in one file, named as
`config.loss = "package.module:function"`; `cross_entropy_with_kl` below is a worked example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int, Key

from vlguard_jax import errors
from vlguard_jax import own_code
from vlguard_jax import types
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import execution as execution_lib

Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Extras:
    """What a loss may read besides model and batch.

    args: `config.loss_args`. reference: the parameters at the start of the run, or None unless the loss asks for them
    (attribute `needs_reference = True` on the function). chunk: bytes of logits at a time. sources: number of sources
    of conversations.
    """

    args: Mapping[str, float]
    reference: functional.Params | None = None
    dropout_key: Key[Array, ""] | None = None
    chunk: int = 2**25
    sources: int = 1


BY_SOURCE = "cross_entropy_by_source"  # among a loss's metrics: f32[sources], summed over supervised tokens

Loss = Callable[[functional.Model, functional.Params, types.Batch, Extras], tuple[Array, Metrics]]


def token_cross_entropy(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B T"],
    chunk: int,
    by_rows: execution_lib.ByRows = execution_lib.directly,
) -> Float32[Array, "B T"]:
    """Cross-entropy of every supervised position (target >= 0) in fp32, and 0 elsewhere.

    On each device the supervised positions of its rows are sorted to the front. The head is applied in chunks of as
    many positions as `chunk` bytes of logits hold, at least one, and recomputed in the backward pass: the logits of
    whole rows are never in memory, and chunks without a supervised position cost nothing.
    """

    def of_rows(head: Array, hidden: Array, targets: Array) -> Array:
        flat = targets.reshape(-1)
        size = min(max(1, chunk // (4 * head.shape[1])), flat.size)
        count = -(-flat.size // size)
        first = jnp.argsort(flat < 0, stable=True)  # supervised first, otherwise in order
        room = (0, count * size - flat.size)
        states = jnp.pad(hidden.reshape(flat.size, -1)[first], (room, (0, 0)))
        wanted = jnp.pad(flat[first], room, constant_values=-1)
        losses = jax.lax.map(lambda x: _chunk(head, *x), (states.reshape(count, size, -1), wanted.reshape(count, size)))
        return jnp.zeros(flat.size, jnp.float32).at[first].set(losses.reshape(-1)[: flat.size]).reshape(targets.shape)

    return by_rows(of_rows, head, hidden, targets)


@jax.checkpoint
def _chunk(head: Float[Array, "D V"], hidden: Float[Array, "C D"], targets: Int[Array, " C"]) -> Float32[Array, " C"]:
    def computed(head: Array, hidden: Array) -> Array:
        logits = jnp.matmul(hidden, head, preferred_element_type=jnp.float32)
        picked = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
        return jnp.where(targets >= 0, jax.nn.logsumexp(logits, axis=-1) - picked, 0.0)

    return jax.lax.cond(
        targets[0] >= 0, computed, lambda head, hidden: jnp.zeros(targets.shape, jnp.float32), head, hidden
    )


def by_source(cross_entropies: Float32[Array, "B T"], batch: types.Batch, extras: Extras) -> Metrics:
    """For the log only: a loss with this among its metrics gets `loss/<source>`, the mean per supervised token of each
    source, in metrics.jsonl."""
    values = jax.lax.stop_gradient(cross_entropies)

    def of_one(source: Array) -> Array:
        return jnp.sum(jnp.where((batch.source == source) & (batch.loss_weight > 0), values, 0.0))

    return {BY_SOURCE: jax.vmap(of_one)(jnp.arange(extras.sources))}


def cross_entropy(
    model: functional.Model, params: functional.Params, batch: types.Batch, extras: Extras
) -> tuple[Array, Metrics]:
    """The recipe's loss: sum of loss_weight * cross-entropy."""
    with model.precision():
        hidden = model.hidden(params, batch, extras.dropout_key)
        losses = token_cross_entropy(
            hidden, model.head_kernel(params), batch.targets, extras.chunk, model.execution.by_rows
        )
    return jnp.sum(batch.loss_weight * losses), by_source(losses, batch, extras)


def cross_entropy_with_kl(
    model: functional.Model, params: functional.Params, batch: types.Batch, extras: Extras
) -> tuple[Array, Metrics]:
    """Worked example of a user's own loss: cross-entropy + loss_args.kl_weight * KL(reference || model) on supervised
    positions.

    Keeps the tuned model near the model it started from, a common cure for over-refusal. Config:
    `loss="cross_entropy_with_kl"`, `loss_args={"kl_weight": 0.1}`.
    """
    kl_weight = extras.args["kl_weight"]

    def log_probabilities(weights: functional.Params, key: Key[Array, ""] | None) -> Array:
        logits = jnp.matmul(
            model.hidden(weights, batch, key), model.head_kernel(weights), preferred_element_type=jnp.float32
        )
        return jax.nn.log_softmax(logits, axis=-1)

    with model.precision():
        ours = log_probabilities(params, extras.dropout_key)
        theirs = jax.lax.stop_gradient(log_probabilities(extras.reference, None))
    picked = jnp.take_along_axis(ours, jnp.maximum(batch.targets, 0)[..., None], axis=-1)[..., 0]
    divergence = jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)
    ce, kl = jnp.sum(batch.loss_weight * -picked), jnp.sum(batch.loss_weight * divergence)
    return ce + kl_weight * kl, {"cross_entropy": ce, "kl": kl, **by_source(-picked, batch, extras)}


cross_entropy_with_kl.needs_reference = True

LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "cross_entropy_with_kl": cross_entropy_with_kl}


def get(name: str) -> Loss:
    """The loss of this name, or the user's own, "package.module:function" from the Python path.

    Raises:
      UserError: there is no such loss; or when it is called, the user's fails.
    """
    if name in LOSSES:
        return LOSSES[name]
    if (code := own(name)) is None:
        raise errors.UserError(
            f"config.loss={name!r} is unknown{errors.nearest(name, LOSSES)} (or write package.module:function)"
        )
    if not callable(code.value):
        raise code.problem("is no function (model, params, batch, extras) -> (weighted sum, metrics)")
    return _blamed(code)


def own(name: str) -> own_code.Own | None:
    """The user's code behind the name of a loss; None where that is no name of such.

    Raises:
      UserError: see `own_code.load`.
    """
    return own_code.load(name, "config.loss") if own_code.BETWEEN in name else None


def _blamed(code: own_code.Own) -> Loss:
    @functools.wraps(code.value)  # with its attributes
    def loss(
        model: functional.Model, params: functional.Params, batch: types.Batch, extras: Extras
    ) -> tuple[Array, Metrics]:
        with code.blamed("when a step was compiled"):
            found: tuple[Array, Metrics] = code.value(model, params, batch, extras)
        return found

    return loss
