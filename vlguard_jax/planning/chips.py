"""Accelerators and slices: data sheets from chips.toml, and names such as "v5e:4x4" or "2xh100:8"."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import re
import tomllib
from typing import Any

from vlguard_jax import errors

TABLE = pathlib.Path(__file__).with_name("chips.toml")
EXAMPLES = "v5e:4x4, v5e-16, 2xv5e:4x4, v5p:2x2x2, h100:8"
LONGEST_NAME = 60
_NAME = re.compile(
    r"(?:(?P<slices>\d{1,6})x(?=[a-z]))?(?P<chip>[a-z]+\d+[a-z]*)(?:(?P<mark>[:-])(?P<size>\d{1,6}(?:x\d{1,6})*))?"
)


@dataclasses.dataclass(frozen=True)
class Chip:
    """One entry of chips.toml, where the fields and their units are explained."""

    name: str
    kind: str
    peak_tflops: float
    hbm_gib: float
    usable_gib: float
    hbm_gbps: float
    link_gbps: float
    dims: int
    wrap: int
    dcn_gbps: float
    host_gib: float
    per_host: int
    devices: int
    named_by: str
    largest: int
    source: str

    @property
    def flops(self) -> float:
        """FLOP/s by the data sheet, bf16."""
        return self.peak_tflops * 1e12


@dataclasses.dataclass(frozen=True)
class Topology:
    """`slices` equal slices of `shape`; on GPUs h100:16 is one "slice" of two nodes."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """The name that `parse` takes."""
        size = "x".join(map(str, self.shape))
        return f"{self.slices}x{self.chip.name}:{size}" if self.slices > 1 else f"{self.chip.name}:{size}"

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def devices(self) -> int:
        """Number of devices that JAX would list."""
        return self.chips * self.chip.devices

    @property
    def hosts(self) -> int:
        """Number of machines."""
        return self.slices * math.ceil(math.prod(self.shape) / self.chip.per_host)

    @property
    def domains(self) -> int:
        """Number of parts joined only by the data-centre network: TPU slices, or nodes of a GPU cluster."""
        return self.slices if self.chip.kind == "tpu" else self.hosts

    @property
    def link_gbps(self) -> float:
        """GB/s that a chip can receive from the others of its domain over all of its links.

        A dimension that is a ring gives two links; a line gives one, as its ends have no other.
        """
        if self.chip.kind == "gpu":
            return self.chip.link_gbps
        links = sum(0 if size == 1 else 2 if size % self.chip.wrap == 0 else 1 for size in self.shape)
        return links * self.chip.link_gbps


@functools.cache
def _table() -> dict[str, Any]:
    with TABLE.open("rb") as file:
        return tomllib.load(file)


@functools.cache
def known() -> dict[str, Chip]:
    """Every chip by its name."""
    return {name: Chip(name=name, **entry) for name, entry in _table().items() if name != "shapes"}


def shapes(chip: Chip) -> list[tuple[int, ...]]:
    """Usual shapes of a slice, by size."""
    if chip.kind == "gpu":
        return [(2**power,) for power in range(9)]
    every = [tuple(map(int, shape.split("x"))) for shape in _table()["shapes"][str(chip.dims)]]
    return [shape for shape in every if math.prod(shape) <= chip.largest]


def offered(chip: Chip, shape: tuple[int, ...]) -> bool:
    """Whether there are slices of this shape: those in the table, 3D ones of whole 4x4x4 cubes, GPUs of whole nodes or
    within one."""
    if chip.kind == "gpu":
        return shape[0] <= chip.per_host or shape[0] % chip.per_host == 0
    cubes = chip.dims == 3 and all(size % 4 == 0 for size in shape) and list(shape) == sorted(shape)
    return cubes or shape in shapes(chip)


def nearest(topology: Topology) -> Topology:
    """The usual slice of the same chip that is nearest in size; for GPUs, of whole nodes."""
    count, chip = math.prod(topology.shape), topology.chip
    if chip.kind == "gpu":
        return dataclasses.replace(topology, shape=(max(1, round(count / chip.per_host)) * chip.per_host,))
    found = min(shapes(chip), key=lambda shape: abs(math.prod(shape) - count))
    return dataclasses.replace(topology, shape=found)


def parse(name: str) -> Topology:
    """The slice of a name: CHIP:SHAPE, CHIP-N as the chip's maker counts N, or NxCHIP:SHAPE for several slices.

    Raises:
      UserError: not of this form, an unknown chip, or a shape that is not offered; the nearest known one is named.
    """
    name = name.strip()
    match = _NAME.fullmatch(name.lower()) if len(name) <= LONGEST_NAME else None
    if match is None:
        shown = name if len(name) <= LONGEST_NAME and name.isprintable() else errors.short(name, LONGEST_NAME)
        raise errors.UserError(f"--topology={shown}: not the name of a slice; for instance {EXAMPLES}")
    if match["chip"] not in known():
        raise errors.UserError(
            f"--topology={name}: chip {match['chip']!r} is unknown{errors.nearest(match['chip'], known())}"
        )
    chip = known()[match["chip"]]
    slices = int(match["slices"] or 1)
    if match["size"] is None:
        raise errors.UserError(f"--topology={name} does not say how many chips; for instance {_topology_names(chip)}")
    sizes = tuple(map(int, match["size"].split("x")))
    by_number = chip.kind == "tpu" and len(sizes) == 1
    shape = _shape_of(chip, sizes[0], name, by_chips=match["mark"] == ":") if by_number else sizes
    expected = 1 if chip.kind == "gpu" else chip.dims
    if len(shape) != expected:
        raise errors.UserError(
            f"--topology={name}: a slice of {chip.name} has {expected} dimensions; for instance {_topology_names(chip)}"
        )
    if not 0 < math.prod(shape) <= chip.largest or slices < 1:
        raise errors.UserError(f"--topology={name}: {chip.name} has slices of 1 to {chip.largest} chips")
    found = Topology(chip, shape, slices)
    if not offered(chip, shape):
        what = (
            f"{chip.name} comes in 1 to {chip.per_host} or whole hosts of {chip.per_host}"
            if chip.kind == "gpu"
            else f"there is no such slice of {chip.name}"
        )
        raise errors.UserError(f"--topology={name}: {what}; the nearest is {nearest(found).name}")
    return found


def _topology_names(chip: Chip) -> str:
    return ", ".join(Topology(chip, shape).name for shape in shapes(chip)[2:5])


def _shape_of(chip: Chip, number: int, name: str, *, by_chips: bool) -> tuple[int, ...]:
    """The usual shape with `number` chips, or cores where the chip's maker counts these, as in "v5p-16"."""
    chips = number if by_chips or chip.named_by == "chips" else number // 2
    by_size = {math.prod(shape): shape for shape in shapes(chip)}
    if chips not in by_size or (not by_chips and chip.named_by == "cores" and number % 2):
        counted = sorted(size * (1 if by_chips or chip.named_by == "chips" else 2) for size in by_size)
        near = min(counted, key=lambda size: abs(size - number))
        raise errors.UserError(
            f"--topology={name}: no usual slice has this size; the nearest is"
            f" {chip.name}{':' if by_chips else '-'}{near}"
        )
    return by_size[chips]
