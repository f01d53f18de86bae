"""The beginnings of prompts on the device: features of pictures, and the cache of all tokens through the last picture.

Every prompt with pictures is read in two parts by the same programs, whether its prefix is kept already or not: the
prefix into a row of `Kept`, the rest from there. So prompts that share a prefix read it once, and no bit depends on
that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int32

from vlguard_jax import types
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import cache as cache_lib


class Kept(NamedTuple):
    """features: [S, D] of pictures. cache: of prefixes, one a row. Each row shard has its own rows of both."""

    features: Float[Array, "S D"]
    cache: cache_lib.Cache


class Prefixes(NamedTuple):
    """R prefixes, right-padded. length: tokens of each, 0 for a row without one. slot: as in types.Batch, among the
    features that are kept. where: the row that will keep it, counted in its row shard; one beyond the last for a row
    without a prefix."""

    tokens: Int32[Array, "R T"]
    positions: Int32[Array, "R T"]
    length: Int32[Array, " R"]
    slot: Int32[Array, "R T"]
    where: Int32[Array, " R"]


class Rests(NamedTuple):
    """What follows the prefixes of R prompts, or the whole of those without one, right-padded.

    last: index of each one's last token, -1 for a row without a prompt. start: places of its prefix; entry: the row
    that keeps it, counted in its row shard. slot: as in Prefixes.
    """

    tokens: Int32[Array, "R C"]
    positions: Int32[Array, "R C"]
    last: Int32[Array, " R"]
    start: Int32[Array, " R"]
    entry: Int32[Array, " R"]
    slot: Int32[Array, "R C"]


def put(_: Any, old: Any, some: Any, where: Int32[Array, " R"]) -> Any:
    """A tree of arrays with rows `where` replaced, as far as the new rows reach; those beyond the last are left
    out."""

    def of(all_: Array, new: Array) -> Array:
        return all_.at[(where, *(slice(size) for size in new.shape[1:]))].set(new, mode="drop")

    return jax.tree.map(of, old, some)


def see(
    model: functional.Model,
    params: functional.Params,
    features: Float[Array, "S D"],
    pictures: types.Pictures,
    where: Int32[Array, " s"],
) -> Float[Array, "S D"]:
    """Put the features of pictures, one of each row shard, into these rows; see `put`."""
    found = model.seen(params, pictures)
    return model.execution.by_rows(put, jnp.zeros(()), features, found, where)


def keep(model: functional.Model, params: functional.Params, kept: Kept, prefixes: Prefixes) -> Kept:
    """Read prefixes into their rows."""
    segments = (jnp.arange(prefixes.tokens.shape[1]) < prefixes.length[:, None]).astype(jnp.int32)
    int8 = kept.cache[0].k_scale is not None
    _, cache = model.read(
        params, prefixes.tokens, prefixes.positions, segments, kept.features, prefixes.slot, int8=int8
    )
    return kept._replace(cache=model.execution.by_rows(put, jnp.zeros(()), kept.cache, cache, prefixes.where))


def rest(
    model: functional.Model, params: functional.Params, kept: Kept | None, rests: Rests, *, size: int, int8: bool
) -> tuple[Float[Array, "R C D"], cache_lib.Cache]:
    """Hidden states of what follows the prefixes, and the cache of the whole prompts in rows of `size` places, zero
    behind their last tokens."""
    new = rests.tokens.shape[1]
    ends = rests.start + rests.last + 1
    if kept is None:
        segments = (jnp.arange(new) <= rests.last[:, None]).astype(jnp.int32)
        hidden, cache = model.read(params, rests.tokens, rests.positions, segments, int8=int8)
        return hidden, _fitted(cache, ends, size)

    def taken(_: Array, rows: cache_lib.Cache, entry: Array) -> cache_lib.Cache:
        return jax.tree.map(lambda x: x[entry], rows)

    begun = model.execution.by_rows(taken, jnp.zeros(()), kept.cache, rests.entry)
    begun = _fitted(begun, rests.start, min(begun[0].length + new, size))
    hidden, cache = model.extend(params, rests.tokens, rests.positions, rests.start, begun, kept.features, rests.slot)
    return hidden, _fitted(cache, ends, size)


def _fitted(cache: cache_lib.Cache, ends: Int32[Array, " R"], size: int) -> cache_lib.Cache:
    """Rows of `size` places, with zeros from `ends` on: what stood there may not be finite, and nothing times zero."""

    def of(x: Array) -> Array:
        x = x[:, :, :size]
        x = jnp.pad(x, [(0, size - n if axis == 2 else 0) for axis, n in enumerate(x.shape)])
        inside = jnp.arange(size) < ends[:, None]
        return jnp.where(inside.reshape(len(ends), 1, size, *(1,) * (x.ndim - 3)), x, jnp.zeros((), x.dtype))

    return jax.tree.map(of, cache)


def score(
    model: functional.Model,
    params: functional.Params,
    kept: Kept | None,
    rests: Rests,
    targets: Int32[Array, "R C"],
    *,
    int8: bool,
) -> Float32[Array, "R C"]:
    """Log-probability of each target after the tokens up to its place; one row's scores at a time are in memory."""
    size = rests.tokens.shape[1] + (kept.cache[0].length if kept else 0)
    hidden, _ = rest(model, params, kept, rests, size=size, int8=int8)

    def of_row(row: tuple[Array, Array]) -> Array:
        logits = model.scores(params, row[0])
        return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), row[1][:, None], axis=-1)[:, 0]

    return jax.lax.map(of_row, (hidden, targets))
