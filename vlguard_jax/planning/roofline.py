"""From operations and bytes to seconds: one model with few constants (efficiency.toml) for every chip and kind of run.

  step = products + attention + update + exposed collectives + exchange between slices or nodes

Products run at a share of the data sheet's rate, a constant per chip generation, and attention at a share of that, the
same on all chips. Collectives over links overlap with the products and are exposed beyond them; those over the network
do not overlap (published runs on several nodes show it). The constants are fitted on the runs of backtest.py, which
also tells how well each run is predicted when it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
import tomllib
from typing import Any

from vlguard_jax.planning import chips
from vlguard_jax.planning import flops
from vlguard_jax.planning import traffic

TABLE = pathlib.Path(__file__).with_name("efficiency.toml")


@dataclasses.dataclass(frozen=True)
class Constants:
    """matmul: share of the data sheet's rate, by chip; attention: share of that; network, links, hbm: shares of the
    data sheet's bandwidth."""

    matmul: Mapping[str, float]
    attention: float
    network: float
    links: float
    hbm: float

    def of(self, chip: chips.Chip) -> float:
        """The share of a chip; without a published run, the mean of its kind (h200 counts as h100, the same
        processor)."""
        name = "h100" if chip.name == "h200" else chip.name
        if name in self.matmul:
            return self.matmul[name]
        same = [value for other, value in self.matmul.items() if chips.known()[other].kind == chip.kind]
        values = same or list(self.matmul.values())
        return sum(values) / len(values)


@functools.cache
def _table() -> dict[str, Any]:
    with TABLE.open("rb") as file:
        return tomllib.load(file)


def constants() -> Constants:
    """The constants in efficiency.toml."""
    table = _table()
    return Constants(table["matmul"], table["attention"], table["network"], table["links"], table["hbm"])


def error(chip: chips.Chip) -> float:
    """Mean error, as a fraction, of predictions of runs left out of the fit; larger for a chip without any run."""
    known = "h100" if chip.name == "h200" else chip.name
    return float(_table()["left_out_error" if known in _table()["matmul"] else "new_chip_error"])


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Of one step. compute, hbm, interconnect, network: each alone at the data sheet's rate. expected: the whole step;
    update and exposed are its parts besides products."""

    compute: flops.Number
    hbm: flops.Number
    interconnect: flops.Number
    network: flops.Number
    expected: flops.Number
    update: flops.Number
    exposed: flops.Number


def seconds(
    work: flops.Flops, moved: traffic.Traffic, topology: chips.Topology, known: Constants | None = None
) -> Seconds:
    """Time of a step. work: of all chips, with recomputation and padding; moved: of one chip."""
    k = known or constants()
    chip = topology.chip
    rate = topology.chips * chip.flops
    products = (work.total - work.attention) / (rate * k.of(chip)) + work.attention / (rate * k.of(chip) * k.attention)
    hbm = moved.hbm / (chip.hbm_gbps * 1e9)
    busy = max(products, (moved.hbm - moved.update) / (chip.hbm_gbps * 1e9 * k.hbm))
    update = moved.update / (chip.hbm_gbps * 1e9 * k.hbm)
    links = moved.links / (topology.link_gbps * 1e9) if moved.links else 0.0
    network = moved.network / (chip.dcn_gbps * 1e9)
    exposed = max(0.0, links / k.links - busy) + network / k.network
    return Seconds(work.total / rate, hbm, links, network, busy + update + exposed, update, exposed)
