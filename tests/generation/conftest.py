"""A mesh of one device."""

import jax
import pytest

from vlguard_jax import config
from vlguard_jax.parallel import mesh as mesh_lib


@pytest.fixture(scope="module", autouse=True)
def whole_on_each_device():
    """One row shard: the tensor axis divides nothing here, so keep every parameter whole on a mesh of one device."""
    patch = pytest.MonkeyPatch()
    build = mesh_lib.build
    one = config.MeshSettings(data=1, fsdp=1, tensor=1)

    def built(given: config.MeshSettings, *devices):
        return build(one, jax.devices()[:1]) if given.tensor == 8 and not devices else build(given, *devices)

    patch.setattr(mesh_lib, "build", built)
    yield
    patch.undo()
