"""The checks of compiled modules find what they are for, in small programs that have it."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from tests.aot import checks
from vlguard_jax.families import table

LAYERS, WIDTH, VOCAB = 6, 64, 999
TEXT = dataclasses.replace(table.PRESETS["llava-v1.5-7b"].text, width=WIDTH, vocab_size=VOCAB, num_layers=LAYERS)


@pytest.fixture(scope="module")
def mesh():
    return jax.sharding.Mesh(np.array(jax.devices()), ("fsdp",))


def array(mesh, shape, *axes):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes)))


def build(mesh, function, *arguments, out=()):
    return jax.jit(function, out_shardings=NamedSharding(mesh, PartitionSpec(*out))).lower(*arguments).compile()


def test_a_large_array_on_every_device_is_found(mesh):
    split, whole = array(mesh, (1024, 2048), "fsdp"), array(mesh, (1024, 2048))
    trees = {"text": {"kernel": whole}, "vision": {"kernel": whole}, "x": split, "unread": whole}
    done = build(mesh, lambda t: (t["text"]["kernel"] + t["vision"]["kernel"]) * t["x"], trees, out=("fsdp",))
    (found,) = checks.replicated(done)
    assert "['text']['kernel']" in found and "whole on each of 8 devices" in found
    assert checks.replicated(build(mesh, lambda t: t["x"] * 2, trees, out=("fsdp",))) == []
    assert checks.replicated(done, limit=9 * checks.MIB) == []


def test_arguments_that_take_too_much_are_found(mesh):
    """An axis of the mesh that splits nothing: not whole, but eight devices hold four parts."""
    square = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("fsdp", "idle"))
    done = build(square, lambda x: x * 2, array(square, (4096, 8192), "fsdp"), out=("fsdp",))
    (found,) = checks.replicated(done)
    assert "arguments take 32 MiB a device; divided by the devices they are 16" in found


def test_a_copy_of_an_argument_is_found():
    """An update in place needs the old array's memory."""
    cache, new = jnp.zeros((64, 1024, 32)), jnp.ones((1024, 32))

    def update(cache, new, at):
        return jax.lax.dynamic_update_slice(cache, new[None], (at, 0, 0))

    (found,) = checks.copied(jax.jit(update).lower(cache, new, 3).compile())
    assert "copies [64, 1024, 32]" in found
    donated = jax.jit(update, donate_argnums=0).lower(cache, new, 3).compile()
    assert checks.copied(donated) == []
    assert checks.copied(jax.jit(update).lower(cache, new, 3).compile(), limit=9 * checks.MIB) == []


def scan(one):
    return lambda x, kernels: jax.lax.scan(lambda h, k: (jnp.tanh(h @ one(k)), None), x, kernels)[0]


def test_a_gather_of_all_layers_is_found(mesh):
    """Gathered before the loop, the whole stack is there at once; within it, a layer."""
    x, kernels = array(mesh, (8, WIDTH), "fsdp"), array(mesh, (LAYERS, WIDTH, WIDTH), None, "fsdp")
    whole, here = NamedSharding(mesh, PartitionSpec()), jax.lax.with_sharding_constraint
    before = build(mesh, lambda x, k: scan(lambda one: one)(x, here(k, whole)), x, kernels, out=("fsdp",)).as_text()
    text = dataclasses.replace(TEXT, mlp_width=WIDTH, vocab_size=WIDTH, num_heads=1, num_kv_heads=1, head_width=WIDTH)
    (found,) = checks.stacks(before, text)
    assert "gathers [6, 64, 64]" in found
    inside = build(mesh, scan(lambda one: here(one, whole)), x, kernels, out=("fsdp",)).as_text()
    assert "all-gather" in inside and checks.stacks(inside, text) == []


@pytest.mark.parametrize("chunk", [1, 8])
def test_logits_of_all_positions_are_found(mesh, chunk):
    rows, length = 8, 128

    def loss(x, head):
        parts = x.reshape(rows, chunk, length // chunk, WIDTH).swapaxes(0, 1)
        return jax.lax.map(lambda part: jax.nn.logsumexp(part @ head, axis=-1).sum(), parts).sum()

    done = build(mesh, loss, array(mesh, (rows, length, WIDTH), "fsdp"), array(mesh, (WIDTH, VOCAB)))
    found = checks.logits(done.as_text(), (length, rows * length), TEXT, 1)
    assert bool(found) == (chunk == 1) and all("logits of all positions" in line for line in found)


def test_a_product_below_highest_is_found():
    x = jnp.ones((4, 4))
    plain = jax.jit(lambda x: x @ x).lower(x).as_text()
    best = jax.jit(lambda x: jnp.matmul(x, x, precision="highest")).lower(x).as_text()
    assert len(checks.precision(plain)) == 1 and checks.precision(best) == []
    assert len(checks.precision(plain + best)) == 1
    assert checks.precision(jax.jit(lambda x: x + x).lower(x).as_text()) == ["there is no product in the module"]
