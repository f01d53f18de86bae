"""The chunked cross-entropy against the plain one: value and gradients, whatever the chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlguard_jax.training import losses


@pytest.mark.parametrize("chunk", [0.1, 1, 4, 7, 12, 36, 100])
def test_chunks_change_nothing(chunk: float) -> None:
    """chunk: positions whose logits stand in memory; at least one does."""
    rng = np.random.default_rng(0)
    hidden, head = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((3, 12, 8), (8, 20)))
    targets = rng.integers(0, 20, (3, 12)).astype(np.int32)
    targets[0, 3] = -100
    weights = jnp.asarray(np.where(targets < 0, 0, rng.random((3, 12))), jnp.float32)

    def plain(h: jax.Array, w: jax.Array) -> jax.Array:
        logp = jax.nn.log_softmax(jnp.einsum("btd,dv->btv", h, w, precision="highest"))
        return -(jnp.take_along_axis(logp, jnp.maximum(targets, 0)[..., None], -1)[..., 0] * weights).sum()

    def chunked(h: jax.Array, w: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return (losses.token_cross_entropy(h, w, jnp.asarray(targets), int(chunk * 4 * 20)) * weights).sum()

    for ours, expected in zip(
        jax.tree.leaves(jax.value_and_grad(chunked, (0, 1))(hidden, head)),
        jax.tree.leaves(jax.value_and_grad(plain, (0, 1))(hidden, head)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_whole_logits_never_stand_in_memory() -> None:
    """No [B, T, V] array in the program, forward or backward."""
    rows, length, width, vocabulary, positions = 2, 64, 8, 300, 32
    shapes = [
        jax.ShapeDtypeStruct(s, d)
        for s, d in (((rows, length, width), "f4"), ((width, vocabulary), "f4"), ((rows, length), "i4"))
    ]
    text = (
        jax.jit(jax.grad(lambda h, w, t: losses.token_cross_entropy(h, w, t, positions * 4 * vocabulary).sum(), (0, 1)))
        .lower(*shapes)
        .as_text()
    )
    assert f"tensor<{positions}x{vocabulary}xf32>" in text
    assert f"x{length}x{vocabulary}xf32" not in text
    assert f"tensor<{rows * length}x{vocabulary}xf32" not in text
    assert f"tensor<{rows * length // positions}x{positions}x{vocabulary}" not in text
    assert f"tensor<{rows * length // positions}x{width}x{vocabulary}" not in text, (
        "the head is kept once for every chunk"
    )


def test_chunks_without_a_supervised_position_are_left_out() -> None:
    """Values there are 0 even where a computed one would not be finite."""
    hidden, head = jnp.full((2, 8, 4), jnp.inf), jnp.ones((4, 5))
    targets = jnp.full((2, 8), -100).at[1, 6].set(3)
    values = np.asarray(losses.token_cross_entropy(hidden.at[1, 6].set(1.0), head, targets, 2 * 4 * 5))
    np.testing.assert_allclose(values[1, 6], np.log(5), rtol=1e-6)
    assert not values[0].any()
    assert not values[1, :6].any()
    assert not values[1, 7]
