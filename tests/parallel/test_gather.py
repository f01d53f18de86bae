"""What process 0 reads of arrays on the mesh, and what lies whole on a device meanwhile."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.parallel import gather
from vlguard_jax.parallel import mesh as mesh_lib

SHAPE = (8, 64, 96)  # a layer; a device's own part of it is 16 x 48
SPECS = [PartitionSpec(None, "fsdp", "tensor"), PartitionSpec(None, "tensor", "fsdp"), PartitionSpec()]
SPECS += [PartitionSpec(None, ("tensor", "fsdp"), None), PartitionSpec(None, None, "fsdp")]
BLOCK = 4 * 96 * 8 * 3  # three rows of each of eight parts


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return mesh_lib.build(config.MeshSettings(data=1, fsdp=4, tensor=2), jax.devices()[:8])


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("block", [BLOCK, gather.BLOCK, 1])
def test_tensors_come_one_by_one(
    mesh: jax.sharding.Mesh, monkeypatch: pytest.MonkeyPatch, spec: PartitionSpec, dtype: type, block: int
) -> None:
    monkeypatch.setattr(gather, "BLOCK", block)
    stack = np.random.default_rng(0).normal(size=SHAPE).astype(dtype)
    alone = PartitionSpec(*spec[1:])
    arrays = {
        "a": {"stack": mesh_lib.put(stack, NamedSharding(mesh, spec))},
        "b": mesh_lib.put(stack[3], NamedSharding(mesh, alone)),
        "c": mesh_lib.put(stack[3, :, 5], NamedSharding(mesh, PartitionSpec(*alone[:1]))),
    }

    def use(served: dict) -> None:
        assert served["a"]["stack"].shape == SHAPE and served["a"]["stack"].dtype == stack.dtype
        for i in (5, 0, 7):
            np.testing.assert_array_equal(served["a"]["stack"][i], stack[i])
        np.testing.assert_array_equal(served["b"][...], stack[3])
        np.testing.assert_array_equal(served["c"][...], stack[3, :, 5])

    gather.for_first(arrays, use)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_device_holds_a_block_and_no_more(
    mesh: jax.sharding.Mesh, monkeypatch: pytest.MonkeyPatch, spec: PartitionSpec
) -> None:
    """In the compiled program: the block, and at most as much again while it is put together."""
    monkeypatch.setattr(gather, "BLOCK", BLOCK)
    place, scalar = NamedSharding(mesh, spec), jax.ShapeDtypeStruct((), jnp.int32)
    stack = jax.ShapeDtypeStruct(SHAPE, jnp.float32, sharding=place)
    parts = SHAPE[1] // place.shard_shape(SHAPE)[1]
    rows = gather.rows_at_a_time(SHAPE[1:], 4, parts)[0].count
    found = gather.take.lower(stack, scalar, scalar, mesh=mesh, spec=spec, rows=rows).compile().memory_analysis()
    assert BLOCK / 2 < found.output_size_in_bytes == rows * parts * 96 * 4 <= BLOCK
    assert found.temp_size_in_bytes <= 1.25 * BLOCK


def test_blocks_hold_every_row() -> None:
    for shape, parts in (((32000, 5120), 4), ((13824, 5120), 32), ((7,), 1), ((262144, 5376), 8), ((10, 2**30), 5)):
        own, size = shape[0] // parts, 4 * parts * int(np.prod(shape[1:]))
        blocks = gather.rows_at_a_time(shape, 4, parts)
        assert {row for rows in blocks for row in range(rows.start, rows.start + rows.count)} == set(range(own))
        assert all(rows.count * size <= gather.BLOCK or rows.count == 1 for rows in blocks)
        assert len({rows.count for rows in blocks}) == 1 and len(blocks) == -(-own // blocks[0].count)


@pytest.mark.parametrize("error", [errors.UserError("full"), OSError(28, "x"), KeyError("x")])
def test_what_fails_is_raised(error: Exception) -> None:
    def use(_: dict) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        gather.for_first({}, use)
    assert caught.value is error
