"""Devices by libtpu's description, and by ours of a GPU, where the compilers are installed."""

from collections.abc import Iterator
import os
from unittest import mock

import pytest

from tests.planning import compilers
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.planning import chips
from vlguard_jax.planning import topologies


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """A compiler is told by variables of the process, which no later test is to find."""
    with mock.patch.dict(os.environ):
        yield


NAMES = ["v4:2x2x1", "v4:2x2x2", "v5e:1x1", "v5e:4x4", "v5p:2x2x2", "v6e:1x1", "v6e:4x4", "tpu7x:2x2x1", "2xv5e:2x2"]


@compilers.needs_libtpu
@pytest.mark.parametrize("name", NAMES)
def test_devices_are_those_of_the_slice(name):
    topology = chips.parse(name)
    found = topologies.devices(topology)
    assert len(found) == topology.devices
    assert {device.platform for device in found} == {"tpu"}
    mesh = mesh_lib.build(config.MeshSettings(data=topology.slices, fsdp=-1, tensor=1), found)
    assert mesh.shape["fsdp"] == topology.devices // topology.slices


@compilers.needs_libtpu
def test_a_shape_that_libtpu_refuses_is_said():
    with pytest.raises(errors.UserError, match=r"v5e:3x5.*; the nearest usual slice is v5e:4x4"):
        topologies.devices(chips.Topology(chips.known()["v5e"], (3, 5)))


@compilers.needs_libtpu
@pytest.mark.parametrize(
    ("raised", "said"), [("ABORTED: libtpu multi-process lockfile", "holds libtpu"), ("no such\nthing", "no such;")]
)
def test_what_libtpu_says_becomes_one_line(monkeypatch, raised, said):
    def refuse(**_):
        raise RuntimeError(raised)

    monkeypatch.setattr(topologies.topologies, "get_topology_desc", refuse)
    with pytest.raises(errors.UserError, match=said) as caught:
        topologies.devices(chips.parse("v5e:4x4"))
    assert "\n" not in str(caught.value) and "--estimate" in str(caught.value)


@compilers.needs_cuda
@pytest.mark.parametrize("name", ["h100:1", "h100:8", "h200:16"])
def test_gpus_are_described(name):
    topology = chips.parse(name)
    found = topologies.devices(topology)
    assert len(found) == topology.devices == len({device.id for device in found})
    assert {device.device_kind for device in found} == {f"NVIDIA {topology.chip.name.upper()}"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("a100:8", r"a100:8: .*h100 and h200; add --estimate for a100")],
)
def test_gpus_without_a_description_are_planned_by_formula(monkeypatch, name, said):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(errors.UserError, match=said):
        topologies.devices(chips.parse(name))


def test_without_a_cuda_plugin_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.UserError, match=r"jax\[cuda13\]"):
        topologies.devices(chips.parse("h100:8"))


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.UserError, match=r"jax\[tpu\]"):
        topologies.devices(chips.parse("v5e:4x4"))
