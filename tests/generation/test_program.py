"""The programs compile from shapes alone, copy nothing large, and keep every slot on its device."""

import dataclasses
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
from vlguard_jax.generation import prefixes
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


def _prompts(built: program.Program, rows: int, each: int, rng: np.random.Generator, moved: int) -> slots.Prompts:
    """Texts of up to 20 tokens, none in the third row; moved: added to all rotary positions."""
    last = np.asarray([19, 18, -1, 16][:rows], np.int32)
    tokens = rng.integers(3, 50, (rows, 20)).astype(np.int32)
    none = np.zeros(rows, np.int32)
    rests = prefixes.Rests(tokens, np.tile(np.arange(20, dtype=np.int32) + moved, (rows, 1)), last, none, none, tokens)
    limits = slots.Limits(*(np.zeros(x.shape, x.dtype) for x in program.prompt_shapes(built, rows, 1).limits))
    most = np.full(rows, NEW, np.int32)
    limits = limits._replace(most=most, least=most, stops=np.full((rows, slots.STOPS), 2, np.int32))
    where = np.asarray([1, 0, each, 1] if mesh_lib.row_shards(built.mesh) > 1 else [5, 2, each, 6], np.int32)
    return slots.Prompts(rests, last + 1 + moved, limits, where)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_admission_and_steps_compile_from_shapes_alone(sizes) -> None:
    """Rows are put into the slots they are meant for, a step of `run` is one of `decode`."""
    built = _built(*sizes)
    shards = mesh_lib.row_shards(built.mesh)
    free, given = program.slot_shapes(built, 8, 32), program.prompt_shapes(built, 4, 20)
    row, cache = program.decode_shapes(built, slots=8, length=32)
    admit = built.admit.lower(built.params, free, None, given).compile()
    number = jax.ShapeDtypeStruct((), jnp.int32)
    run = built.run.lower(built.params, free, number, number).compile()
    decode = built.decode.lower(built.params, row, row, row, cache).compile()

    params = weights.load(tiny.random_params(MODEL), MODEL, built.mesh)
    used = [1, 2, 7] if shards > 1 else [5, 2, 6]

    def admitted(moved: int) -> slots.Slots:
        prompts = _prompts(built, 4, 8 // shards, np.random.default_rng(0), moved)
        place = mesh_lib.row_sharding(built.mesh)
        return admit(params, built.empty(8, 32), None, jax.device_put(jax.tree.map(jnp.asarray, prompts), place))

    begun = admitted(0)
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
    later = admitted(7)
    np.testing.assert_array_equal(np.asarray(later.ids)[used, 0], first)  # attention sees distances alone
    again = run(params, later, np.int32(16), np.int32(9))[1]
    np.testing.assert_array_equal(np.asarray(again.ids), np.asarray(status.ids))


def _lowered(built: program.Program, what: str, slots_: int) -> tuple[jax.stages.Lowered, list[jax.ShapeDtypeStruct]]:
    """A program, and the arrays that it is given to write into."""
    shards, number = mesh_lib.row_shards(built.mesh), jax.ShapeDtypeStruct((), jnp.int32)
    free, kept = program.slot_shapes(built, slots_, 40), program.kept_shapes(built, 40 * shards, 3 * shards, 24)
    row, cache = program.decode_shapes(built, slots=slots_, length=40)
    rows, patches = 2 * shards, tiny.CONFIG.vision.num_patches
    pictures = program.picture_shapes(built, family.Room(1, patches))
    calls = {
        "run": (built.run, (free, number, number), free.cache),
        "decode": (built.decode, (row, row, row, cache), cache),
        "admit": (built.admit, (free, None, program.prompt_shapes(built, rows, 20)), free.cache),
        "admit_rest": (built.admit, (free, kept, program.prompt_shapes(built, rows, 20)), free.cache),
        "keep": (built.keep, (kept, program.prefix_shapes(built, rows, 20)), kept.cache),
        "see": (built.see, (kept.features, *pictures), kept.features),
    }
    function, args, written = calls[what]
    return function.lower(built.params, *args), jax.tree.leaves(written)


@pytest.mark.parametrize("what", ["run", "decode", "admit", "admit_rest", "keep", "see"])
def test_nothing_copies_weights_or_cache(what: str) -> None:
    """An array of the size of a layer's cache or of a matrix is made nowhere in a module, and what it writes to is
    written in place."""
    built = _built(1, 1, 1)
    lowered, written = _lowered(built, what, slots_=4)
    done = lowered.compile()
    large = {math.prod(one.shape) for one in written}
    large |= {math.prod(x.shape) for x in jax.tree.leaves(built.params["text"]) if len(x.shape) == 2}
    for lines in hlo.parse(done.as_text())[0].values():
        for line in lines.values():
            made = line.opcode in ("copy", "transpose", "convert", "gather", "dynamic-slice")
            assert not made or hlo.size(line.shape) // 4 not in large, line
    found = done.memory_analysis()
    assert found is not None and found.alias_size_in_bytes >= 4 * sum(math.prod(x.shape) for x in written)


@pytest.mark.parametrize("what", ["run", "admit", "admit_rest", "keep", "see"])
def test_slots_stay_on_their_devices(what: str) -> None:
    """On a mesh no collective brings a layer's cache, or what is kept, or a part of it, from one device to another."""
    lowered, written = _lowered(_built(4, 1, 1), what, slots_=8)
    own = min(4 * math.prod(x.shape) for x in written) // 4
    for lines in hlo.parse(lowered.compile().as_text())[0].values():
        for line in lines.values():
            assert line.opcode.removesuffix("-start") not in hlo.KINDS or hlo.size(line.shape) < own, line


def test_heads_that_cannot_be_dealt_to_the_tensor_axis_are_refused() -> None:
    with pytest.raises(errors.UserError, match=r"config\.mesh\.tensor=8 must divide 4 heads and 2 kv heads"):
        _built(1, 1, 8)


def test_half_precision_copies_no_weights_on_a_cpu() -> None:
    """XLA would hold fp32 copies of all of them: a few layers of middle width tell."""
    text = dataclasses.replace(tiny.CONFIG.text, width=512, mlp_width=1408, num_layers=4, num_heads=8, num_kv_heads=8)
    sizes = dataclasses.replace(tiny.CONFIG, text=dataclasses.replace(text, head_width=64))
    mesh = mesh_lib.build(config.MeshSettings(1, 1, 1), jax.devices()[:1])
    built = program.build(sizes, None, "bf16", mesh, max_new=NEW)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    run = built.run.lower(built.params, program.slot_shapes(built, 1, 32), number, number).compile()
    row, cache = program.decode_shapes(built, slots=1, length=32)
    decode = built.decode.lower(built.params, row, row, row, cache).compile()
    layer = 4 * (4 * 512 * 512 + 3 * 512 * 1408)  # bytes in fp32
    for compiled in (run, decode):
        assert compiled.memory_analysis().temp_size_in_bytes < 2 * layer
