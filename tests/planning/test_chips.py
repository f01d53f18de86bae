"""Names of slices and what they stand for; prices."""

from __future__ import annotations

import datetime
import tomllib

import pytest

from vlguard_jax import errors
from vlguard_jax.planning import chips
from vlguard_jax.planning import flags
from vlguard_jax.planning import prices


@pytest.mark.parametrize(
    ("name", "shown", "count", "devices", "hosts", "domains"),
    [
        ("v5e:4x4", "v5e:4x4", 16, 16, 4, 1),
        ("v5e-16", "v5e:4x4", 16, 16, 4, 1),
        ("V5E:16", "v5e:4x4", 16, 16, 4, 1),
        ("2xv5e:4x4", "2xv5e:4x4", 32, 32, 8, 2),
        ("v5p-128", "v5p:4x4x4", 64, 64, 16, 1),  # Google counts cores
        ("v5p:64", "v5p:4x4x4", 64, 64, 16, 1),
        ("v4-8", "v4:2x2x1", 4, 4, 1, 1),
        ("v6e:1x1", "v6e:1x1", 1, 1, 1, 1),
        ("v5p:8x8x12", "v5p:8x8x12", 768, 768, 192, 1),
        ("h100:3", "h100:3", 3, 3, 1, 1),
        ("3xh100:4", "3xh100:4", 12, 12, 3, 3),
        ("h200:24", "h200:24", 24, 24, 3, 3),
        ("tpu7x:2x2x1", "tpu7x:2x2x1", 4, 8, 1, 1),
        ("h100:8", "h100:8", 8, 8, 1, 1),
        ("h200-16", "h200:16", 16, 16, 2, 2),
        ("2xa100:8", "2xa100:8", 16, 16, 2, 2),
    ],
)
def test_names(name, shown, count, devices, hosts, domains):
    found = chips.parse(name)
    assert (found.name, found.chips, found.devices, found.hosts, found.domains) == (
        shown,
        count,
        devices,
        hosts,
        domains,
    )
    assert chips.parse(found.name) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v7x:4x4", "did you mean 'tpu7x'?"),
        ("h20:8", "did you mean 'h200'?"),
        ("v5e", "does not say how many chips"),
        ("v5e-17", "the nearest is v5e-16"),
        ("v5p-9", "the nearest is v5p-8"),
        ("v5e:4x4x4", "has 2 dimensions"),
        ("v5p:4x4", "has 3 dimensions"),
        ("h100:2x4", "has 1 dimensions"),
        ("v5e:0x4", "1 to 256 chips"),
        ("v5e:32x32", "1 to 256 chips"),
        ("0xv5e:4x4", "1 to 256 chips"),
        ("v5e:3x3", "there is no such slice of v5e; the nearest is v5e:2x4"),
        ("v5e:4x2", "the nearest is v5e:2x4"),
        ("v6e:1x4", "the nearest is v6e:2x2"),
        ("v6e:3x5", "the nearest is v6e:4x4"),
        ("2xv6e:1x5", "the nearest is 2xv6e:2x2"),
        ("2xv5e:4x5", "the nearest is 2xv5e:4x4"),
        ("v4:1x1x1", "the nearest is v4:2x2x1"),
        ("v4:6x6x6", "the nearest is v4:4x8x8"),
        ("v5p:8x4x4", "the nearest is v5p:4x4x8"),
        ("v5p:2x2x3", "the nearest is v5p:2x2x2"),
        ("tpu7x:1x2x1", "the nearest is tpu7x:2x2x1"),
        ("h100:11", "1 to 8 or whole hosts of 8; the nearest is h100:8"),
        ("h200:15", "1 to 8 or whole hosts of 8; the nearest is h200:16"),
        ("v5e:" + "9" * 5000, "9'... (5,004 characters): not the name of a slice"),
        ("v5e\n4x4", r"'v5e\n4x4': not the name of a slice"),
        ("4x4", "not the name of a slice"),
        ("", "not the name of a slice"),
    ],
)
def test_mistakes(name, message):
    with pytest.raises(errors.UserError) as caught:
        chips.parse(name)
    assert (
        message in str(caught.value) and str(caught.value).startswith("--topology=") and "\n" not in str(caught.value)
    )


def test_links():
    """A ring gives a chip two links along a dimension, a line one, a single chip none."""
    rates = {
        name: chips.parse(name).link_gbps
        for name in ("v5e:16x16", "v5e:8x16", "v5e:4x4", "v6e:2x2", "v5p:4x4x4", "v5p:2x2x4", "h100:8")
    }
    assert rates == {
        "v5e:16x16": 180,
        "v5e:8x16": 135,
        "v5e:4x4": 90,
        "v6e:2x2": 180,
        "v5p:4x4x4": 540,
        "v5p:2x2x4": 360,
        "h100:8": 450,
    }
    assert chips.parse("v6e:1x1").link_gbps == 0


def test_table():
    for chip in chips.known().values():
        assert chip.usable_gib <= chip.hbm_gib and chip.source and chip.kind in ("tpu", "gpu")
        assert all(chips.Topology(chip, shape).chips <= chip.largest for shape in chips.shapes(chip))
    assert set(flags.chips()) <= set(chips.known())


def test_prices():
    table = tomllib.loads(prices.TABLE.read_text())
    assert set(table) <= set(chips.known())
    assert all(
        isinstance(entry["as_of"], datetime.date) and entry["source"] and entry["on_demand"] > 0
        for entry in table.values()
    )
    found = prices.get("v5e")
    assert found is not None and found.dollars == 1.20 and found.source.endswith("2025-02-01")
    assert prices.get("tpu7x") is None
    assert prices.get("tpu7x", 9.5) == prices.Price(9.5, "--price")
