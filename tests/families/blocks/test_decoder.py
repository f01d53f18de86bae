"""What the backward pass keeps changes no gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.families import tiny
from vlguard_jax import config
from vlguard_jax import ranges
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import execution as execution_lib


@functools.cache
def _program(remat: str, unroll: int) -> tuple[jax.stages.Lowered, tuple]:
    """The gradients as a program, and what it is given."""
    model = functional.Model(tiny.CONFIG, "fp32", execution=execution_lib.Execution(remat=remat, unroll=unroll))
    params = model.init(0)
    x = jax.random.normal(jax.random.key(1), (2, 16, tiny.CONFIG.text.width))
    positions, segments = jnp.tile(jnp.arange(16), (2, 1)), jnp.ones((2, 16), jnp.int32)

    def value(params, x):
        with model.precision():
            text = model._merged(params).text
            return (text(x, positions, segments, execution=model.execution)[0] ** 2).sum()

    return jax.jit(jax.grad(value, argnums=(0, 1))).lower(params, x), (params, x)


@functools.cache
def _gradients(remat: str, unroll: int) -> list[np.ndarray]:
    lowered, given = _program(remat, unroll)
    return [np.asarray(g) for g in jax.tree.leaves(lowered.compile()(*given))]


@pytest.mark.parity
@pytest.mark.parametrize("unroll", [1, pytest.param(2, marks=pytest.mark.more)])
@pytest.mark.parametrize("remat", execution_lib.REMAT)
def test_gradients_are_those_without(remat, unroll):
    for ours, expected in zip(_gradients(remat, unroll), _gradients("none", 1), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parity
def test_each_policy_is_a_program_of_its_own():
    texts = {remat: _program(remat, 1)[0].as_text() for remat in ("none", *execution_lib.REMAT)}
    assert len(set(texts.values())) == len(texts)


def test_every_choice_of_the_config_is_known():
    assert set(ranges.rules(config.TrainConfig)["run.remat"].choices) == {"none", *execution_lib.REMAT}
