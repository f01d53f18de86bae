"""Collectives and times by hand."""

from __future__ import annotations

import dataclasses

import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.planning import chips
from vlguard_jax.planning import flops
from vlguard_jax.planning import roofline
from vlguard_jax.planning import traffic

SMALL = table.PRESETS["llava-v1.5-7b"]
SIZES = flops.sizes(SMALL)
KNOWN = roofline.Constants({"v5e": 0.5}, attention=0.5, network=0.5, links=0.5, hbm=0.5)


@pytest.mark.parametrize(
    ("settings", "name", "shape"),
    [
        ({}, "v5e:4x4", (1, 16, 1)),
        ({}, "tpu7x:2x2x1", (1, 8, 1)),
        ({}, "4xv5e:4x4", (4, 16, 1)),
        ({}, "h100:16", (1, 16, 1)),  # a node is no slice
        ({"tensor": 2}, "v5e:4x4", (1, 8, 2)),
        ({"data": -1, "fsdp": 4}, "v5e:4x4", (4, 4, 1)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, "v5e:2x4", (2, 2, 2)),
    ],
)
def test_mesh(settings, name, shape):
    assert dataclasses.astuple(traffic.mesh(config.MeshSettings(**settings), chips.parse(name))) == shape


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        ({"tensor": 3}, "v5e:4x4", "does not multiply to the 16 devices of v5e:4x4"),
        ({"fsdp": 8}, "v5e:4x4", "does not multiply"),
        ({"data": -1}, "v5e:4x4", "at most one is -1"),
        ({"fsdp": 0}, "v5e:4x4", "sizes are positive"),
        ({"data": 2}, "4xv5e:4x4", "must be a multiple of the 4 slices"),
    ],
)
def test_mesh_mistakes(settings, name, message):
    with pytest.raises(errors.UserError, match=message):
        traffic.mesh(config.MeshSettings(**settings), chips.parse(name))


def moved(shape: tuple[int, int, int], name: str, **load) -> traffic.Traffic:
    given = {
        "sizes": SIZES,
        "lora": False,
        "tokens": 1000.0,
        "micro": 1,
        "compute_bytes": 2,
        "params_bytes": 4,
    }
    return traffic.training(
        SMALL.text, traffic.Load(**{**given, **load}), traffic.Mesh(*shape), chips.parse(name), flops.policy("full")
    )


def test_fsdp_moves_six_bytes_a_parameter():
    whole = SIZES.text + SIZES.projector
    found = moved((1, 16, 1), "v5e:4x4")
    assert found.links == pytest.approx(6 * whole * 15 / 16) and found.network == 0
    assert found.update == pytest.approx(28 * whole / 16)
    assert moved((1, 16, 1), "v5e:4x4", micro=4).links == pytest.approx(4 * found.links)
    assert moved((1, 1, 1), "v5e:1x1").links == 0


def test_lora_scatters_adapters_alone():
    sizes = flops.sizes(SMALL, configs.LoraConfig(128, 256.0, 0.0))
    found = moved((1, 16, 1), "v5e:4x4", sizes=sizes, lora=True)
    whole = sizes.text + sizes.projector + sizes.adapters
    assert found.links == pytest.approx((2 * whole + sizes.projector + sizes.adapters) * 2 * 15 / 16)


def test_slices_sum_their_gradients_over_the_network():
    """Each chip has a sixteenth of the gradients; summing it over four slices moves 2 x 3/4 of that."""
    found = moved((4, 16, 1), "4xv5e:4x4")
    assert found.network == pytest.approx(2 * (SIZES.text + SIZES.projector) / 16 * 2 * 3 / 4)
    assert found.links == pytest.approx(moved((1, 16, 1), "v5e:4x4").links)


def test_nodes_that_share_parameters_gather_over_the_network():
    """What comes from the other node comes once for its eight GPUs."""
    found = moved((1, 16, 1), "h100:16")
    assert found.network == pytest.approx(6 * (SIZES.text + SIZES.projector) / 2 / 8)
    within = moved((2, 8, 1), "h100:16")  # parameters within a node, gradients over both
    assert within.network == pytest.approx(2 * (SIZES.text + SIZES.projector) * 2 / 8 / 2)


def test_tensor_axis_sums_activations():
    found = moved((1, 4, 2), "v5e:2x4", tokens=1000.0)
    gathers = 6 * (SIZES.text + SIZES.projector) / 2 * 3 / 4
    assert found.links - gathers == pytest.approx(6 * 32 * 1000 * 4096 * 2 * 2 / 2)


def test_seconds_by_hand():
    """v5e:4x4: 16 x 197 TFLOP/s, 819 GB/s, 90 GB/s of links a chip, everything at half of it."""
    slice_ = chips.parse("v5e:4x4")
    rate = 16 * 197e12
    work = flops.Flops(linear=0.8 * rate, attention=0.1 * rate)
    found = roofline.seconds(work, traffic.Traffic(links=9e9, network=0.0, update=8.19e9, hbm=81.9e9), slice_, KNOWN)
    assert (found.compute, found.hbm, found.interconnect, found.network) == pytest.approx((0.9, 0.1, 0.1, 0.0))
    assert found.update == pytest.approx(0.02) and found.exposed == 0
    assert found.expected == pytest.approx(0.8 / 0.5 + 0.1 / 0.25 + 0.02)


def test_collectives_hide_behind_products_but_for_the_network():
    slice_ = chips.parse("v5e:4x4")
    work = flops.Flops(linear=0.5 * 16 * 197e12)  # one second
    hidden, longer = (roofline.seconds(work, traffic.Traffic(n, 0.0, 0.0, 0.0), slice_, KNOWN) for n in (44e9, 90e9))
    assert (
        hidden.expected == pytest.approx(1.0)
        and longer.exposed == pytest.approx(1.0)
        and longer.expected == pytest.approx(2.0)
    )
    over = roofline.seconds(work, traffic.Traffic(0.0, 3.125e9, 0.0, 0.0), slice_, KNOWN)
    assert over.expected == pytest.approx(1.0 + 2.0)


def test_hbm_bounds_small_work():
    found = roofline.seconds(
        flops.Flops(linear=1e9), traffic.Traffic(0.0, 0.0, 0.0, 8.19e9), chips.parse("v5e:4x4"), KNOWN
    )
    assert found.expected == pytest.approx(0.02)


def test_chips_without_a_run():
    known = roofline.constants()
    tpus = [share for name, share in known.matmul.items() if chips.known()[name].kind == "tpu"]
    assert known.of(chips.known()["tpu7x"]) == pytest.approx(sum(tpus) / len(tpus))
    assert known.of(chips.known()["h200"]) == known.matmul["h100"]
    assert (
        roofline.error(chips.known()["tpu7x"])
        > roofline.error(chips.known()["h200"])
        == roofline.error(chips.known()["h100"])
    )
