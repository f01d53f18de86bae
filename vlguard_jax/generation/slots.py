"""Decode slots on the device: one answer in each row, which begins and ends on its own.

A slot is filled by a prefill, is given one token a step, and is free again when a stop id, its limit or scores that are
not finite end its answer. No row reads another's numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int32, UInt32

from vlguard_jax.families import functional
from vlguard_jax.families.blocks import cache as cache_lib
from vlguard_jax.generation import prefixes
from vlguard_jax.generation import sampling

STOPS = 16  # stop ids of an answer, at most


class Limits(NamedTuple):
    """Of each answer: the most new tokens, how many come before a stop id is allowed, and its stop ids, the rest filled
    up with ids beyond the vocabulary.

    temperature: of the draw, 0 for the best token. tail, seed: see `sampling.draw`; a seed of no columns means that no
    row is ever drawn, and the programs hold no code for it.
    """

    most: Int32[Array, " B"]
    least: Int32[Array, " B"]
    stops: Int32[Array, "B n"]
    temperature: Float32[Array, " B"]
    tail: Float32[Array, " B"]
    seed: UInt32[Array, "B r"]


class Slots(NamedTuple):
    """B slots.

    token: the last chosen id, whose rotary position is `position` and whose place in the cache is `at`. ids: the
    answer, `made` of them so far. logprobs: of each under the model's own distribution, whatever is banned or drawn.
    live: whether it goes on. stopped: a stop id ended it. finite: False where the scores had NaN or an infinity; the
    ids are those chosen before.
    """

    token: Int32[Array, " B"]
    position: Int32[Array, " B"]
    at: Int32[Array, " B"]
    ids: Int32[Array, "B C"]
    logprobs: Float32[Array, "B C"]
    made: Int32[Array, " B"]
    live: Bool[Array, " B"]
    stopped: Bool[Array, " B"]
    finite: Bool[Array, " B"]
    limits: Limits
    cache: cache_lib.Cache


class Status(NamedTuple):
    """What the host needs of the slots. steps: taken; idle: slots without an answer, summed over them."""

    ids: Array
    logprobs: Array
    made: Array
    live: Array
    stopped: Array
    finite: Array
    steps: Array
    idle: Array


def empty(rows: int, new: int, cache: cache_lib.Cache, draws: bool) -> Slots:
    """Free slots. new: tokens of the longest answer. draws: whether some may be drawn."""
    none, no, zero = (jnp.zeros((rows,), kind) for kind in (jnp.int32, bool, jnp.float32))
    seed = jnp.zeros((rows, 2 if draws else 0), jnp.uint32)
    limits = Limits(none, none, jnp.zeros((rows, STOPS), jnp.int32), zero, zero, seed)
    ids = jnp.zeros((rows, new), jnp.int32)
    return Slots(none, none, none, ids, ids.astype(jnp.float32), none, no, no, ~no, limits, cache)


def _choose(logits: Float32[Array, "B V"], made: Int32[Array, " B"], limits: Limits) -> Int32[Array, " B"]:
    """The best token, or a drawn one; stop ids are banned before `least` tokens (reference: transformers
    MinNewTokensLengthLogitsProcessor)."""
    banned = jax.vmap(lambda row, stops: row.at[stops].set(-jnp.inf, mode="drop"))(logits, limits.stops)
    scores = jnp.where((made < limits.least)[:, None], banned, logits)
    best = jnp.argmax(scores, axis=-1).astype(jnp.int32)
    if not limits.seed.shape[1]:
        return best

    def drawn() -> Array:
        chosen = sampling.draw(scores, limits.temperature, limits.tail, limits.seed, made)
        return jnp.where(limits.temperature > 0, chosen, best)

    return jax.lax.cond((limits.temperature > 0).any(), drawn, lambda: best)


def _advance(slots: Slots, logits: Float32[Array, "B V"]) -> Slots:
    """Give every live slot its next token, and free those that it ends."""
    finite = jnp.isfinite(logits).all(axis=-1) | ~slots.live
    taken = slots.live & finite
    token = jnp.where(taken, _choose(logits, slots.made, slots.limits), slots.token)
    logprob = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
    place = jnp.where(taken, slots.made, slots.ids.shape[1])
    stop = taken & (token[:, None] == slots.limits.stops).any(axis=-1)
    made = slots.made + taken
    write = jax.vmap(lambda row, at, one: row.at[at].set(one, mode="drop"))
    return slots._replace(
        token=token,
        ids=write(slots.ids, place, token),
        logprobs=write(slots.logprobs, place, logprob),
        made=made,
        live=taken & ~stop & (made < slots.limits.most),
        stopped=slots.stopped | stop,
        finite=slots.finite & finite,
    )


class Prompts(NamedTuple):
    """R prompts for free slots. follows: rotary position of each one's answer. where: its slot, counted in its row
    shard; one beyond the last for a row without a prompt."""

    rests: prefixes.Rests
    follows: Int32[Array, " R"]
    limits: Limits
    where: Int32[Array, " R"]


def admit(
    model: functional.Model,
    params: functional.Params,
    slots: Slots,
    kept: prefixes.Kept | None,
    prompts: Prompts,
) -> Slots:
    """Read the rest of R prompts and put their first tokens into free slots. kept: their prefixes; None where none has
    one."""
    size, int8, read = slots.cache[0].length, slots.cache[0].k_scale is not None, prompts.rests
    hidden, cache = prefixes.rest(model, params, kept, read, size=size, int8=int8)
    last = jnp.maximum(read.last, 0)
    logits = model.scores(params, jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0])
    limits = prompts.limits._replace(seed=prompts.limits.seed[:, : slots.limits.seed.shape[1]])
    begun = empty(len(last), slots.ids.shape[1], cache, False)._replace(
        position=prompts.follows, at=read.start + read.last + 1, live=read.last >= 0, limits=limits
    )
    return model.execution.by_rows(prefixes.put, jnp.zeros(()), slots, _advance(begun, logits), prompts.where)


def run(
    model: functional.Model,
    params: functional.Params,
    slots: Slots,
    steps: Int32[Array, ""],
    wanted: Int32[Array, ""],
) -> tuple[Slots, Status]:
    """At most `steps` steps; ends before, when `wanted` slots or all are free."""

    def free(slots: Slots) -> Array:
        return jnp.sum(~slots.live, dtype=jnp.int32)

    def goes_on(state: tuple[Slots, Array, Array]) -> Array:
        now, taken, _ = state
        return now.live.any() & (taken < steps) & (free(now) < wanted)

    def step(state: tuple[Slots, Array, Array]) -> tuple[Slots, Array, Array]:
        now, taken, idle = state
        logits, cache = model.decode(params, now.token, now.position, now.at, now.cache)
        moved = now._replace(position=now.position + now.live, at=now.at + now.live, cache=cache)
        return _advance(moved, logits), taken + 1, idle + free(now)

    none = jnp.zeros((), jnp.int32)
    end, taken, idle = jax.lax.while_loop(goes_on, step, (slots, none, none))
    return end, Status(end.ids, end.logprobs, end.made, end.live, end.stopped, end.finite, taken, idle)


def release(slots: Slots, which: Bool[Array, " B"]) -> Slots:
    """End the answers in these slots."""
    return slots._replace(live=slots.live & ~which)


def narrow(model: functional.Model, slots: Slots, which: Int32[Array, " b"]) -> Slots:
    """These slots alone, counted in each row shard; in place of those beyond the last, free ones."""

    def taken(_: Array, old: Slots, which: Array) -> Slots:
        some = jax.tree.map(lambda x: x.at[which].get(mode="clip"), old)
        return some._replace(live=some.live & (which < len(old.live)))

    return model.execution.by_rows(taken, jnp.zeros(()), slots, which)
