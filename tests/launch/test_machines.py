"""Names of accelerators, as the clouds write them."""

from __future__ import annotations

import pytest

from launch import machines
from vlguard_jax import errors


@pytest.mark.parametrize(
    ("text", "name", "chips", "hosts", "api", "xpk", "machine"),
    [
        ("v5e:4x4", "v5e:4x4", 16, 4, "v5litepod-16", "v5litepod-16", "ct5lp-hightpu-4t"),
        ("v5e-16", "v5e:4x4", 16, 4, "v5litepod-16", "v5litepod-16", "ct5lp-hightpu-4t"),
        ("v5e:16", "v5e:4x4", 16, 4, "v5litepod-16", "v5litepod-16", "ct5lp-hightpu-4t"),
        ("v4-8", "v4:2x2x1", 4, 1, "v4-8", "v4-8", "ct4p-hightpu-4t"),
        ("v5p-16", "v5p:2x2x2", 8, 2, "v5p-16", "v5p-16", "ct5p-hightpu-4t"),
        ("v5p:8", "v5p:2x2x2", 8, 2, "v5p-16", "v5p-16", "ct5p-hightpu-4t"),
        ("v6e-1", "v6e:1x1", 1, 1, "v6e-1", "v6e-1", "ct6e-standard-1t"),
        ("tpu7x-16", "tpu7x:2x2x2", 8, 2, "tpu7x-16", "tpu7x-2x2x2", "tpu7x-standard-4t"),
    ],
)
def test_slices(text, name, chips, hosts, api, xpk, machine):
    found = machines.parse(text)
    assert (found.name, found.chips, found.hosts) == (name, chips, hosts)
    assert (found.api_type, found.xpk_type, found.machine) == (api, xpk, machine)
    assert found.tpu and found.chips_per_host * found.hosts == chips


def test_small_slices_have_one_host_in_the_cloud_tpu_api():
    assert (machines.parse("v6e-8").api_hosts, machines.parse("v6e-8").hosts) == (1, 2)
    assert machines.parse("v6e-16").api_hosts == 4


@pytest.mark.parametrize(("text", "hosts", "each"), [("h100:1", 1, 1), ("h100:8", 1, 8), ("h200:16", 2, 8)])
def test_gpus(text, hosts, each):
    found = machines.parse(text)
    assert not found.tpu and (found.name, found.hosts, found.chips_per_host) == (text, hosts, each)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5e:4x5", "4x4|4x8"),
        ("v5e-17", "v5e-16"),
        ("v5p-7", "v5p-8"),
        ("v7e:4x4", "did you mean"),
        ("h100:3", "1, 2, 4, 8 or whole hosts"),
        ("h100:12", "whole hosts"),
        ("v5e", "v5e"),
        ("nonsense!", "v5e"),
        ("2xv5e:4x4", "slices = 2"),
    ],
)
def test_unknown_ones_are_named(text, message):
    with pytest.raises(errors.UserError, match=message) as caught:
        machines.parse(text)
    assert text in str(caught.value) and "\n" not in str(caught.value)
