"""Dropout of adapters: what it is drawn by."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import lora

WIDTH, SHARE = 32, 0.75
KEY = jax.random.key(7, impl="threefry2x32")


@jax.jit
def _applied(key: jax.Array, ids: jax.Array) -> jax.Array:
    adapter = configs.LoraConfig(rank=WIDTH, alpha=float(WIDTH), dropout=1 - SHARE)
    drawn = lora.dropout(key, ids)
    return lora.delta(jnp.ones((ids.size, WIDTH)), jnp.eye(WIDTH), jnp.eye(WIDTH), adapter, drawn)


def kept(segment_ids: list[list[int]], *folds: int) -> np.ndarray:
    """bool[B, T, WIDTH]: the features that an adapter reads."""
    ids = np.asarray(segment_ids, np.int32)
    drawn = lora.dropout(KEY, jnp.asarray(ids[:1, :1]))
    for index in folds:
        drawn = drawn.folded(index)
    found = np.asarray(_applied(drawn.key, ids)).reshape(*ids.shape, WIDTH)
    np.testing.assert_allclose(found[found != 0], 1 / SHARE, rtol=1e-6)
    return found != 0


def test_a_conversation_draws_the_same_wherever_it_lies() -> None:
    """Alone in a row, behind others, in another row, beside padding."""
    alone = kept([[3] * 300, [5] * 40 + [0] * 260])
    packed = kept([[5] * 40 + [9] * 7 + [3] * 300, [0] * 347])
    np.testing.assert_array_equal(packed[0, 47:], alone[0])
    np.testing.assert_array_equal(packed[0, :40], alone[1, :40])


def test_every_draw_is_its_own() -> None:
    """Between conversations, positions (over 256, too), features, layers and projections, at the share that is told."""
    drawn = kept([[1] * 600, [2] * 600])
    assert abs(drawn.mean() - SHARE) < 4 * (SHARE * (1 - SHARE) / drawn.size) ** 0.5
    rows = drawn.reshape(1200, WIDTH)
    assert len(np.unique(rows, axis=0)) > 1190
    assert len(np.unique(rows, axis=1).T) == WIDTH
    others = [kept([[1] * 600, [2] * 600], *folds) for folds in ((), (0,), (1,), (0, 1), (1, 0))]
    for i, one in enumerate(others):
        for other in others[:i]:
            same = SHARE**2 + (1 - SHARE) ** 2
            assert abs((one == other).mean() - same) < 0.02
