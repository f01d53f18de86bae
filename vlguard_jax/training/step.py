"""One optimizer step as one jitted program: gradient accumulation by scan, donated state, no gradients of frozen
parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Int
import optax

from vlguard_jax import trees
from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.training import losses


class TrainState(NamedTuple):
    """What changes in training: update count i32[], trained parameters, optimizer state."""

    step: Int[Array, ""]
    params: functional.Params
    opt_state: optax.OptState


Metrics = dict[str, Array]


def trains(part: str, *, with_lora: bool) -> bool:
    """Whether a part of the model (parameters.PARTS) is trained. Full: decoder and projector. LoRA: adapters and
    projector. The tower never is (llava/train/train.py)."""
    return part in (("adapter", "projector") if with_lora else ("text", "head", "projector"))


def split(
    params: functional.Params, model: family.Config, lora: configs.LoraConfig | None
) -> tuple[functional.Params, functional.Params]:
    """(trained, frozen) parts of a model's parameter tree."""
    known = table.parameters_of(model, lora)
    flat = trees.flatten(params)
    trained = {p: v for p, v in flat.items() if trains(known[p].part, with_lora=lora is not None)}
    frozen = {p: v for p, v in flat.items() if p not in trained}
    return trees.unflatten(trained), trees.unflatten(frozen)


def join(trained: functional.Params, frozen: functional.Params) -> functional.Params:
    """The inverse of `split`."""
    flat = trees.flatten(trained) | trees.flatten(frozen)
    return trees.unflatten(flat)


def init_state(trained: functional.Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    return TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained))


def build(
    model: functional.Model,
    loss: losses.Loss,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    loss_args: dict[str, float],
    loss_chunk: int,
    sources: int = 1,
    places: Any = None,
) -> Callable[[TrainState, functional.Params, functional.Params | None, types.Batch], tuple[TrainState, Metrics]]:
    """The step function (state, frozen, reference, batch) -> (state, metrics), to be jitted with `donate_argnums=0`.

    `batch` arrays have a leading axis A of micro-batches, whose losses and gradients are summed: loss_weight already
    holds the normalisation over the whole step. Dropout is drawn by
    seed, step, conversation, position, layer and projection, and so not by where a row lies. A loss or
    gradient that is not finite leaves parameters and moments unchanged and is counted in metrics["skipped"]. places:
    shardings of the gradients.
    """
    with_dropout = model.lora is not None and model.lora.dropout > 0

    def micro_loss(trained: Any, frozen: Any, reference: Any, micro: types.Batch, key: Array) -> tuple[Array, Metrics]:
        extras = losses.Extras(loss_args, reference, key if with_dropout else None, loss_chunk, sources)
        return loss(model, join(trained, frozen), micro, extras)

    def train_step(state: TrainState, frozen: Any, reference: Any, batch: types.Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), state.step)

        def gradient(micro: types.Batch) -> Any:
            result, grads = jax.value_and_grad(micro_loss, has_aux=True)(state.params, frozen, reference, micro, key)
            return result, grads if places is None else jax.lax.with_sharding_constraint(grads, places)

        def micro_step(total: Any, micro: types.Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(micro)), None

        first = jax.tree.map(lambda x: x[0], batch)
        if batch.tokens.shape[0] == 1:
            total = gradient(first)
        else:  # the model is in the program once
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, first))
            total, _ = jax.lax.scan(micro_step, zeros, batch)
        (value, aux), grads = total
        return _apply(state, optimizer, value, aux, grads)

    return train_step


def build_measure(
    model: functional.Model,
    loss: losses.Loss,
    *,
    loss_args: dict[str, float],
    loss_chunk: int,
    sources: int = 1,
) -> Callable[[functional.Params, functional.Params, functional.Params | None, types.Batch], Metrics]:
    """The function (trained, frozen, reference, batch) -> metrics, to be jitted: the loss that is trained on, as
    "loss", and what it reports, without dropout; summed over micro-batches as in `build`."""

    def measure(trained: Any, frozen: Any, reference: Any, batch: types.Batch) -> Metrics:
        def of_micro(micro: types.Batch) -> Metrics:
            extras = losses.Extras(loss_args, reference, None, loss_chunk, sources)
            value, aux = loss(model, join(trained, frozen), micro, extras)
            return {"loss": value, **aux}

        if batch.tokens.shape[0] == 1:
            return of_micro(jax.tree.map(lambda x: x[0], batch))
        return jax.tree.map(lambda x: x.sum(0), jax.lax.map(of_micro, batch))

    return measure


def _apply(
    state: TrainState, optimizer: optax.GradientTransformation, value: Array, aux: Metrics, grads: Any
) -> tuple[TrainState, Metrics]:
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), (params, opt_state), (state.params, state.opt_state)
    )
    metrics = {"loss": value, "grad_norm": norm, "skipped": 1 - finite.astype(jnp.int32), **aux}
    return TrainState(state.step + 1, params, opt_state), metrics
