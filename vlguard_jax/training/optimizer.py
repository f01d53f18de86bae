"""AdamW with the reference's arithmetic (transformers 4.37.2 trainer and optimization.py, llava_trainer.py:150-211)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import optax

from vlguard_jax import config
from vlguard_jax import trees


def cosine_factor(total: int, warmup_ratio: float) -> optax.Schedule:
    """Learning-rate factor of update u (from 0): u / warmup, then half a cosine. Update 0 has factor 0.

    warmup = ceil(warmup_ratio * total), as in transformers' `get_cosine_schedule_with_warmup`.
    `optax.warmup_cosine_decay_schedule` rounds the warm-up differently, as 1 - (1 - u / warmup), and refuses a run that
    is all warm-up, such as one of a single update.
    """
    warmup = math.ceil(warmup_ratio * total)

    def factor(update: ArrayLike) -> jax.Array:
        u = jnp.asarray(update, jnp.float32)
        rising = u / max(warmup, 1)
        falling = 0.5 * (1.0 + jnp.cos(jnp.pi * (u - warmup) / max(total - warmup, 1)))
        return jnp.where(u < warmup, rising, jnp.maximum(falling, 0.0))

    return factor


def decays(path: str) -> bool:
    """Whether weight decay applies: not to biases and norm scales (llava_trainer.py:155-158)."""
    return not path.endswith((".bias", "norm.scale"))


def learning_rate(path: str, settings: config.OptimizerSettings) -> float:
    """Peak learning rate of a parameter; the projector may have its own."""
    if path.startswith("projector.") and settings.projector_learning_rate:
        return settings.projector_learning_rate
    return settings.learning_rate


def clip_like_torch(max_norm: float) -> optax.GradientTransformation:
    """Scale all gradients by min(1, max_norm / (global norm + 1e-6)), as torch.nn.utils.clip_grad_norm_."""

    def update(grads: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        del params
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(grads) + 1e-6))
        return jax.tree.map(lambda g: g * factor, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _per_path(function: Any, params: Any) -> Any:
    flat = trees.flatten(params)
    return trees.unflatten({path: function(path) for path in flat})


def _scale_by_group(settings: config.OptimizerSettings) -> optax.GradientTransformation:
    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        del params
        rates = _per_path(lambda path: -learning_rate(path, settings), updates)
        return jax.tree.map(lambda u, rate: u * rate, updates, rates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def build(settings: config.OptimizerSettings, total_updates: int) -> optax.GradientTransformation:
    """AdamW over the trained tree: optional clipping, weight-decay groups, learning rates by group, cosine with
    warm-up."""
    parts = [
        optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps),
        optax.add_decayed_weights(settings.weight_decay, mask=lambda params: _per_path(decays, params)),
        _scale_by_group(settings),
        optax.scale_by_schedule(cosine_factor(total_updates, settings.warmup_ratio)),
    ]
    if settings.clip_norm:
        parts.insert(0, clip_like_torch(settings.clip_norm))
    return optax.chain(*parts)


def applied(state: optax.OptState) -> jax.Array:
    """Number of updates that were not skipped, i32[], from the state of `build`."""
    return moments(state)[2]


def moments(state: optax.OptState) -> tuple[Any, Any, jax.Array]:
    """(first moments, second moments, number of updates that were not skipped, i32[]), from the state of `build`."""
    adam = next(part for part in state if isinstance(part, optax.ScaleByAdamState))
    return adam.mu, adam.nu, adam.count
