"""An int8 cache keeps what numpy rounds, scales are exact, and attention reads it where it lies."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.families import tiny
from vlguard_jax.families.blocks import cache

RNG = np.random.default_rng(0)


def _kv(tokens: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (3, tokens, 2, 8)
    return tuple(RNG.normal(0, 3, shape).astype(np.float32) for _ in range(2))


def test_numbers_are_rounded_to_127_parts_of_the_largest() -> None:
    k, v = _kv(5)
    k[1, 2, 0] = 0  # a vector of zeros has scale 0 and stays so
    made = cache.of(jnp.asarray(k), jnp.asarray(v), int8=True)
    for given, found, scale in ((k, made.k, made.k_scale), (v, made.v, made.v_scale)):
        turned = given.swapaxes(1, 2)
        # division by a constant may be done by its reciprocal
        np.testing.assert_allclose(np.asarray(scale), np.abs(turned).max(-1) / 127, rtol=2e-7, atol=0)
        expected = np.asarray(scale)
        parts = np.divide(turned, expected[..., None], out=np.zeros_like(turned), where=expected[..., None] > 0)
        np.testing.assert_array_equal(np.asarray(found), np.round(parts).astype(np.int8))
        assert np.abs(np.asarray(found)[expected > 0]).max(-1).min() == 127  # every vector uses the whole range
        near = np.asarray(found) * expected[..., None]
        assert (np.abs(near - turned) <= expected[..., None] * 0.5001).all()


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("new", [1, 3])
def test_tokens_are_written_at_their_places(int8: bool, new: int) -> None:
    old, some = (cache.of(*map(jnp.asarray, _kv(n)), int8=int8) for n in (9, new))
    at = np.asarray([0, 4, 6])
    found = cache.written(old, some, jnp.asarray(at))
    for name in ("k", "v", "k_scale", "v_scale"):
        if (before := getattr(old, name)) is None:
            assert getattr(found, name) is None and not int8
            continue
        expected = np.asarray(before).copy()
        for row, place in enumerate(at):
            expected[row, :, place : place + new] = np.asarray(getattr(some, name))[row]
        np.testing.assert_array_equal(np.asarray(getattr(found, name)), expected)


@pytest.mark.parametrize("int8", [False, True])
def test_attention_is_that_of_numpy(int8: bool) -> None:
    """Over the numbers that are kept, with as many query heads for each of its own as there are."""
    made = cache.of(*map(jnp.asarray, _kv(9)), int8=int8)
    q, seen = (
        RNG.normal(0, 1, (3, 2, 4, 8)).astype(np.float32),
        np.arange(9) <= np.asarray([[2, 3], [8, 8], [0, 5]])[..., None],
    )
    k, v = np.asarray(made.k, np.float64), np.asarray(made.v, np.float64)
    if int8:
        k, v = k * np.asarray(made.k_scale)[..., None], v * np.asarray(made.v_scale)[..., None]
    k, v = (np.repeat(x, 2, axis=1) for x in (k, v))
    scores = np.einsum("bche,bhse->bhcs", q, k) / 8**0.5
    weights = np.where(seen[:, None], np.exp(scores - scores.max(-1, keepdims=True)), 0)
    expected = np.einsum("bhcs,bhse->bche", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(np.asarray(cache.attend(jnp.asarray(q), made, jnp.asarray(seen))), expected, atol=2e-5)


def test_an_empty_cache_has_the_models_sizes() -> None:
    text = tiny.CONFIG.text
    for int8, dtype in ((False, jnp.bfloat16), (True, jnp.int8)):
        made = cache.empty(text, 2, 16, jnp.dtype(jnp.bfloat16), int8=int8)
        assert len(made) == text.num_layers and made[0].length == 16
        assert made[0].k.shape == (2, text.num_kv_heads, 16, text.head_width) and made[0].v.dtype == dtype
        assert (made[0].k_scale is None) != int8
