"""Every test is in one tier, and CI runs every tier."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests import source

TIERS = ["test", "parity", "faults", "quickstart", "aot"]


@pytest.mark.parametrize("tier", TIERS)
def test_ci_runs_every_tier(tier: str) -> None:
    assert re.search(rf"^step make {tier}$", (source.ROOT / ".ci/run").read_text(), re.M)
    assert re.search(rf"^{tier}: .*## ", (source.ROOT / "Makefile").read_text(), re.M)


def test_what_make_test_leaves_out_is_run_by_another_tier() -> None:
    """Every marker that pytest deselects by itself is selected by a target of its own name."""
    pytest_ini = tomllib.loads((source.ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    left_out = re.search(r"-m '(.*)'", pytest_ini["addopts"])
    assert left_out is not None
    markers = [condition.removeprefix("not ") for condition in left_out[1].split(" and ")]
    assert set(markers) <= {marker.partition(":")[0] for marker in pytest_ini["markers"]}
    for marker in markers:
        target = (source.ROOT / "Makefile").read_text().partition(f"\n{marker}: ")[2].partition("\n\n")[0]
        assert re.search(rf"pytest -m .*\b{marker}\b", target), f"no `make {marker}` runs what is marked so"
