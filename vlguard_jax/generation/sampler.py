"""Greedy decoding of one batch as one program: prefill, then a loop on the device that ends when every row has
stopped."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int32

from vlguard_jax import types
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import decoder


class Answers(NamedTuple):
    """New ids i32[B, C] (with the stop id, then padding), their count i32[B], and whether a stop id ended them.

    finite: False where a row's logits had NaN or an infinity; its ids are those chosen before.
    """

    ids: Int32[Array, "B C"]
    length: Int32[Array, " B"]
    stopped: Bool[Array, " B"]
    finite: Bool[Array, " B"]


class _Loop(NamedTuple):
    made: Array  # new tokens so far
    ids: Array  # [B, C]
    length: Array  # [B]
    stopped: Array  # [B]
    finite: Array  # [B]
    logits: Array  # [B, V] for the next token
    cache: decoder.Cache


def _pick(logits: Float32[Array, "B V"], stop_ids: Int32[Array, " n"], ban_stop: Bool[Array, ""]) -> Int32[Array, " B"]:
    banned = logits.at[:, stop_ids].set(-jnp.inf)
    return jnp.argmax(jnp.where(ban_stop, banned, logits), axis=-1).astype(jnp.int32)


def greedy(
    model: functional.Model,
    params: functional.Params,
    batch: types.Batch,
    last: Int32[Array, " B"],
    follows: Int32[Array, " B"],
    stop_ids: Int32[Array, " n"],
    *,
    max_new: int,
    min_new: int,
    pad_id: int,
) -> Answers:
    """Answer a batch of right-padded prompts whose last token is at `last` (rows with last < 0 are empty) and whose
    answer starts at the rotary position `follows`.

    At most `max_new` new tokens; stop ids are banned for the first `min_new` (reference: transformers
    MinNewTokensLengthLogitsProcessor). Every row decodes at its own positions, so its answer does not depend on other
    rows.
    """
    rows = batch.tokens.shape[0]
    logits, cache = model.prefill(params, batch, jnp.maximum(last, 0), batch.tokens.shape[1] + max_new)
    start = _Loop(
        jnp.zeros((), jnp.int32),
        jnp.full((rows, max_new), pad_id, jnp.int32),
        jnp.zeros((rows,), jnp.int32),
        last < 0,
        jnp.ones((rows,), bool),
        logits,
        cache,
    )

    def step(loop: _Loop) -> _Loop:
        finite = loop.stopped | jnp.isfinite(loop.logits).all(axis=-1)
        ended = loop.stopped | ~finite
        token = jnp.where(ended, pad_id, _pick(loop.logits, stop_ids, loop.made < min_new))
        length = loop.length + ~ended
        stopped = ended | jnp.isin(token, stop_ids)
        ids = loop.ids.at[:, loop.made].set(token)
        at = jnp.maximum(last, 0) + 1 + loop.made
        logits, cache = model.decode(params, token, follows + loop.made, at, loop.cache)
        return _Loop(loop.made + 1, ids, length, stopped, loop.finite & finite, logits, cache)

    end = jax.lax.while_loop(lambda loop: (loop.made < max_new) & ~jnp.all(loop.stopped), step, start)
    return Answers(end.ids, end.length, end.stopped, end.finite)
