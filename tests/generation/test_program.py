"""The abstract programs are those that the engine runs: they compile from shapes alone, and prefill and decode give its
answers."""

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
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules

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

    places = rules.shardings(tiny.CONFIG, None, built.mesh)
    params = rules.place(tiny.random_params(functional.Model(tiny.CONFIG, "fp32")), places, np.dtype(np.float32))
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


def test_heads_that_cannot_be_dealt_to_the_tensor_axis_are_refused() -> None:
    with pytest.raises(errors.UserError, match=r"config\.mesh\.tensor=8 must divide 4 heads and 2 kv heads"):
        _built(1, 1, 8)
