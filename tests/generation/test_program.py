"""The programs compile from shapes alone, copy nothing large, and keep every slot on its device."""

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
from vlguard_jax.generation import slots
from vlguard_jax.generation import weights
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.planning import hlo

MODEL = functional.Model(tiny.CONFIG, "fp32")
NEW = 4


def _built(data: int, fsdp: int, tensor: int) -> program.Program:
    sizes = config.MeshSettings(data, fsdp, tensor)
    mesh = mesh_lib.build(sizes, jax.devices()[: data * fsdp * tensor])
    return program.build(tiny.CONFIG, None, "fp32", mesh, max_new=NEW)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_admission_and_steps_compile_from_shapes_alone(sizes) -> None:
    """Rows are put into the slots they are meant for, a step of `run` is one of `decode`."""
    built = _built(*sizes)
    shards = mesh_lib.row_shards(built.mesh)
    room = family.Room(4 // shards, 4 // shards * tiny.CONFIG.vision.num_patches)
    given = program.admit_shapes(built, rows=4, prompt=20, room=room, slots=8, length=32)
    row, cache = program.decode_shapes(built, slots=8, length=32)
    admit = built.admit.lower(built.params, *given).compile()
    number = jax.ShapeDtypeStruct((), jnp.int32)
    run = built.run.lower(built.params, given[0], number, number).compile()
    decode = built.decode.lower(built.params, row, row, row, cache).compile()

    params = weights.load(tiny.random_params(MODEL), MODEL, built.mesh)
    batch = tiny.batch(tiny.CONFIG, rows=4)
    last = np.asarray([19, 18, -1, 16], np.int32)  # no prompt in the third row
    greedy = (np.zeros(4, np.float32), np.zeros(4, np.float32), np.zeros((4, 2), np.uint32))
    limits = slots.Limits(np.full(4, NEW), np.full(4, NEW), np.full((4, slots.STOPS), 2), *greedy)
    each = 8 // shards
    where = np.asarray([1, 0, each, 1] if shards > 1 else [5, 2, each, 6], np.int32)
    used = [1, 2, 7] if shards > 1 else [5, 2, 6]
    place = mesh_lib.row_sharding(built.mesh)

    def placed(moved: int):
        rest = (batch._replace(positions=batch.positions + moved), last, last + 1 + moved, limits, where)
        return jax.device_put(jax.tree.map(jnp.asarray, rest), place)

    begun = admit(params, built.empty(8, 32), *placed(0))
    first = np.asarray(begun.ids)[used, 0]
    assert np.flatnonzero(np.asarray(begun.live)).tolist() == sorted(used)
    token, position, at = (jnp.copy(x) for x in (begun.token, begun.position, begun.at))
    kept = jax.tree.map(jnp.copy, begun.cache)
    _, status = run(params, begun, np.int32(16), np.int32(9))
    assert int(status.steps) == NEW - 1 and not status.live.any()
    logits, _ = decode(params, token, position, at, kept)
    np.testing.assert_array_equal(
        np.asarray(logits.at[:, 2].set(-jnp.inf).argmax(-1))[used], np.asarray(status.ids)[used, 1]
    )
    later = admit(params, built.empty(8, 32), *placed(7))
    np.testing.assert_array_equal(np.asarray(later.ids)[used, 0], first)  # attention sees distances alone
    again = run(params, later, np.int32(16), np.int32(9))[1]
    np.testing.assert_array_equal(np.asarray(again.ids), np.asarray(status.ids))


@pytest.mark.parametrize("what", ["run", "decode", "admit"])
def test_nothing_copies_weights_or_cache(what: str) -> None:
    """An array of the size of a layer's cache or of a matrix is made nowhere in a module, and the cache is written in
    place."""
    built = _built(1, 1, 1)
    room = family.Room(2, 2 * tiny.CONFIG.vision.num_patches)
    given = program.admit_shapes(built, rows=2, prompt=20, room=room, slots=4, length=40)
    row, cache = program.decode_shapes(built, slots=4, length=40)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    lowered = {
        "run": lambda: built.run.lower(built.params, given[0], number, number),
        "decode": lambda: built.decode.lower(built.params, row, row, row, cache),
        "admit": lambda: built.admit.lower(built.params, *given),
    }
    done = lowered[what]().compile()
    large = {math.prod(one.shape) for one in jax.tree.leaves(cache)}
    large |= {math.prod(x.shape) for x in jax.tree.leaves(built.params["text"]) if len(x.shape) == 2}
    for lines in hlo.parse(done.as_text())[0].values():
        for line in lines.values():
            made = line.opcode in ("copy", "transpose", "convert", "gather", "dynamic-slice")
            assert not made or hlo.size(line.shape) // 4 not in large, line
    found = done.memory_analysis()
    assert found is not None and found.alias_size_in_bytes >= 4 * sum(
        math.prod(x.shape) for x in jax.tree.leaves(cache)
    )


@pytest.mark.parametrize("what", ["run", "admit"])
def test_slots_stay_on_their_devices(what: str) -> None:
    """On a mesh no collective brings a layer's cache, or a part of it, from one device to another."""
    built = _built(4, 1, 1)
    room = family.Room(1, tiny.CONFIG.vision.num_patches)
    given = program.admit_shapes(built, rows=4, prompt=20, room=room, slots=8, length=40)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    args = {"run": (given[0], number, number), "admit": given}[what]
    text = getattr(built, what).lower(built.params, *args).compile().as_text()
    own = min(4 * math.prod(x.shape) for x in jax.tree.leaves(given[0].cache)) // 4
    for lines in hlo.parse(text)[0].values():
        for line in lines.values():
            assert line.opcode.removesuffix("-start") not in hlo.KINDS or hlo.size(line.shape) < own, line


def test_heads_that_cannot_be_dealt_to_the_tensor_axis_are_refused() -> None:
    with pytest.raises(errors.UserError, match=r"config\.mesh\.tensor=8 must divide 4 heads and 2 kv heads"):
        _built(1, 1, 8)
