"""Which devices stand where, and what is refused."""

import types

import jax
import numpy as np
import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.parallel import mesh


def test_one_size_may_be_what_is_left():
    built = mesh.build(config.MeshSettings(data=2, fsdp=-1, tensor=2), jax.devices()[:8])
    assert dict(built.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert mesh.row_shards(built) == 4


@pytest.mark.parametrize("sizes", [(3, -1, 1), (2, 2, 1), (-1, -1, 1), (0, 8, 1), (1, 16, 1)])
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(sizes):
    with pytest.raises(errors.UserError, match=r"config\.mesh"):
        mesh.build(config.MeshSettings(*sizes), jax.devices()[:8])


def _devices(count: int, size: int, platform: str = "tpu") -> list[types.SimpleNamespace]:
    """Devices of several slices, two a chip, dealt out like cards."""
    return [
        types.SimpleNamespace(slice_index=i % count, id=i, platform=platform, core_on_chip=i // count % 2)
        for i in range(count * size)
    ]


def test_only_the_data_axis_crosses_slices():
    placed = mesh._arranged(_devices(2, 4), [4, 2, 1])
    assert [{device.slice_index for device in part.flat} for part in placed] == [{0}, {0}, {1}, {1}]
    assert len({device.id for device in placed.flat}) == 8


def test_an_axis_other_than_data_must_not_cross_slices():
    with pytest.raises(errors.UserError, match=r"multiple of the 2 slices here.*--config\.mesh\.data=2"):
        mesh.sizes(config.MeshSettings(3, 4, 1), 12, 2)


def test_the_data_axis_joins_the_slices_by_itself():
    assert mesh.sizes(config.MeshSettings(), 8, 2) == [2, 4, 1]
    assert mesh.sizes(config.MeshSettings(slices=2), 8, 2) == [2, 4, 1]
    # any axis may cross nodes of GPUs
    assert mesh.sizes(config.MeshSettings(), 8, mesh._slices(_devices(2, 4, "gpu"))) == [1, 8, 1]


@pytest.mark.parametrize(("asked", "there"), [(3, 2), (2, 1)])
def test_slices_that_are_missing_are_noticed(asked, there):
    with pytest.raises(errors.UserError, match=f"config.mesh.slices={asked}, but the devices here are of {there}"):
        mesh.sizes(config.MeshSettings(slices=asked), 4 * there, there)


def test_pictures_of_a_shard_are_put_into_its_rows():
    built = mesh.build(config.MeshSettings(data=2, fsdp=2, tensor=1), jax.devices()[:4])
    features = np.arange(4 * 2 * 3 * 5, dtype=np.float32).reshape(8, 3, 5)  # two pictures a shard, of three slots each
    slot = np.full((4, 9), -1, np.int32)
    for row in range(4):
        slot[row, 2:5] = (2 * row + 1) * 3 + np.arange(3)
    x = -np.ones((4, 9, 5), np.float32)
    found = np.asarray(jax.jit(mesh.put_own_pictures(built))(features.reshape(-1, 5), slot, x))
    np.testing.assert_array_equal(found[:, 2:5], features[1::2])
    assert (np.delete(found, [2, 3, 4], axis=1) == -1).all()


def test_a_sum_by_rows_gives_the_whole_gradient():
    built = mesh.build(config.MeshSettings(data=2, fsdp=2, tensor=2), jax.devices()[:8])
    shared, rows = np.arange(6, dtype=np.float32), np.arange(24, dtype=np.float32).reshape(4, 6)

    def total(shared, rows):
        return mesh.by_rows(built)(lambda shared, rows: rows * shared, shared, rows).sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(total))(shared, rows), rows.sum(0))
