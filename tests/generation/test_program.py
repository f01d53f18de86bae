"""The abstract programs are those that the engine runs: they compile from shapes alone, and prefill and decode give its
answers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.families import tiny
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.generation import program
from vlguard_jax.generation import weights
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.planning import hlo

SIZES = dict(max_new=4, min_new=4, stop_ids=(2,), pad_id=0)


def _built(data: int, fsdp: int, tensor: int) -> program.Program:
    sizes = config.MeshSettings(data, fsdp, tensor)
    return program.build(
        tiny.CONFIG, None, "fp32", mesh_lib.build(sizes, jax.devices()[: data * fsdp * tensor]), **SIZES
    )


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_prefill_and_decode_give_the_answers_from_shapes_alone(sizes) -> None:
    built = _built(*sizes)
    each = 4 // mesh_lib.row_shards(built.mesh)
    room = family.Room(each, each * tiny.CONFIG.vision.num_patches)
    prompts, last = program.prompt_shapes(built, rows=4, prompt=20, room=room)
    row, cache = program.decode_shapes(built, rows=4, prompt=20)
    answer = built.answer.lower(built.params, prompts, last, last).compile()
    prefill = built.prefill.lower(built.params, prompts, last).compile()
    decode = built.decode.lower(built.params, row, row, row, cache).compile()

    model = functional.Model(tiny.CONFIG, "fp32")
    params = weights.load(tiny.random_params(model), model, built.mesh)
    batch = tiny.batch(tiny.CONFIG, rows=4)
    last = jnp.asarray([19 - row for row in range(4)], jnp.int32)
    batch, last, follows = jax.device_put((batch, last, last + 1), mesh_lib.row_sharding(built.mesh))
    ids = np.asarray(answer(params, batch, last, follows).ids)
    moved = jax.device_put((batch.positions + 7, follows + 7), mesh_lib.row_sharding(built.mesh))
    later = answer(params, batch._replace(positions=moved[0]), last, moved[1])
    np.testing.assert_array_equal(np.asarray(later.ids), ids)  # attention sees distances alone

    logits, cache = prefill(params, batch, last)
    for i in range(SIZES["max_new"]):
        token = logits.at[:, 2].set(-jnp.inf).argmax(-1).astype(jnp.int32)
        np.testing.assert_array_equal(np.asarray(token), ids[:, i])
        token, position = jax.device_put((token, last + 1 + i), mesh_lib.row_sharding(built.mesh))
        logits, cache = decode(params, token, position, position, cache)


def test_decoding_copies_neither_weights_nor_cache() -> None:
    """Of the loop that the engine runs: an array of the size of a layer's cache or of a matrix is made nowhere in it,
    and the cache is written in place."""
    built = _built(1, 1, 1)
    room = family.Room(4, 4 * tiny.CONFIG.vision.num_patches)
    row, cache = program.decode_shapes(built, rows=4, prompt=20)
    prompts, last = program.prompt_shapes(built, rows=4, prompt=20, room=room)
    cached = {math.prod(one.shape) for one in jax.tree.leaves(cache)}
    large = cached | {math.prod(x.shape) for x in jax.tree.leaves(built.params["text"]) if len(x.shape) == 2}
    step = built.decode.lower(built.params, row, row, row, cache).compile()
    answer = built.answer.lower(built.params, prompts, last, last).compile()
    computations, entry = hlo.parse(answer.as_text())
    inside = [lines for name, lines in computations.items() if name != entry]
    for lines in (*hlo.parse(step.as_text())[0].values(), *inside):
        for line in lines.values():
            made = line.opcode in ("copy", "transpose", "convert", "gather", "dynamic-slice")
            assert not made or hlo.size(line.shape) // 4 not in large, line
    found = step.memory_analysis()
    assert found is not None and found.alias_size_in_bytes >= 4 * sum(
        math.prod(x.shape) for x in jax.tree.leaves(cache)
    )


def test_heads_that_cannot_be_dealt_to_the_tensor_axis_are_refused() -> None:
    with pytest.raises(errors.UserError, match=r"config\.mesh\.tensor=8 must divide 4 heads and 2 kv heads"):
        _built(1, 1, 8)
