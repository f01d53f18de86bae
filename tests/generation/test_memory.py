"""Slots that do not fit are refused before a prompt is read on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.families import tiny
from tests.generation import stand
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.families.blocks import cache
from vlguard_jax.generation import memory

CACHED = 2 * 2 * 2 * 8 * 4  # bytes of a token: keys and values, layers, heads, width, fp32
WEIGHTS = sum(x.size * 4 for x in jax.tree.leaves(stand.PARAMS))


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (3.5, "4 answers at a time take 0.0 GiB of cache .*; set it to 3 or less"),
        (0.5, "divide the model with --config.mesh.tensor"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused_at_once(monkeypatch, room: float, said: str) -> None:
    """A long prompt that waits is enough, though short ones would be answered first."""
    prompts = [types.Prompt(f"p{n}", np.full(n, 7, np.int32)) for n in (5, 6, 200)]
    one = CACHED * (256 + 6)
    monkeypatch.setattr(memory, "limit", lambda mesh: int((WEIGHTS + room * one) / (1 - memory.KEPT)) + 1)
    built, asked = stand.one(slots=4), []
    monkeypatch.setattr(type(built), "_admit", lambda *args: asked.append(args))
    with pytest.raises(errors.UserError, match=f"config.decode.batch_size: {said}" if room > 1 else said):
        list(built.generate(prompts))
    assert not asked and not built.busy


def test_what_fits_is_answered(monkeypatch) -> None:
    assert tiny.CONFIG.text.num_layers == 2 and memory.limit(stand.one()._mesh) is None  # a CPU does not say
    monkeypatch.setattr(memory, "limit", lambda mesh: int((WEIGHTS + 4 * CACHED * (128 + 6)) / (1 - memory.KEPT)) + 1)
    assert len(stand.ids(stand.one(slots=4).generate([types.Prompt("p", np.full(5, 7, np.int32))]))) == 1


@pytest.mark.parametrize(("int8", "number"), [(False, 4), (True, 1)])
def test_bytes_of_a_token_are_those_of_the_arrays(int8: bool, number: int) -> None:
    text = tiny.CONFIG.text
    made = cache.empty(text, 1, 10, jnp.dtype(jnp.float32), int8=int8)
    assert 10 * memory.of_token(text, number, 1) == sum(x.nbytes for x in jax.tree.leaves(made))
    assert 2 * memory.of_token(text, number, 2) == memory.of_token(text, number, 1)
