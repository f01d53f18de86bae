"""Accelerators by the names that the clouds give them.

The names themselves (v5e-16, v5e:4x4, v5p:2x2x2, h100:8) are plan's.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
import tomllib
from typing import Any

from vlguard_jax import errors
from vlguard_jax.planning import chips

TABLE = pathlib.Path(__file__).with_name("machines.toml")


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One TPU slice, or the GPUs of one job. `entry` is the chip's section of machines.toml."""

    slice: chips.Topology
    entry: Mapping[str, Any]

    @property
    def tpu(self) -> bool:
        """Whether this is a TPU slice."""
        return self.slice.chip.kind == "tpu"

    @property
    def name(self) -> str:
        """As plan takes it: v5e:4x4 or h100:8."""
        return self.slice.name

    @property
    def chip(self) -> str:
        """The chip's name: v5e."""
        return self.slice.chip.name

    @property
    def chips(self) -> int:
        """Number of chips."""
        return self.slice.chips

    @property
    def topology(self) -> str:
        """4x4; for GPUs their number."""
        return "x".join(map(str, self.slice.shape))

    @property
    def hosts(self) -> int:
        """Machines of a slice (GKE, Compute Engine), or of the GPU job."""
        return self.slice.hosts

    @property
    def api_hosts(self) -> int:
        """Machines of a slice in the Cloud TPU API, which has hosts with 8 chips for small slices."""
        return 1 if self.chips in self.entry["single_host"] else self.hosts

    @property
    def chips_per_host(self) -> int:
        """Chips of one machine."""
        return self.chips // self.hosts

    @property
    def machine(self) -> str:
        """Machine type in Compute Engine."""
        return self.entry["one_chip"] if self.chips == 1 else self.entry["machine"]

    @property
    def api_type(self) -> str:
        """Accelerator type in the Cloud TPU API, whose number counts chips or cores; the chip's name where the API
        lacks it."""
        return f"{self.entry['api_name'] or self.chip}-{self.chips * (2 if self.slice.chip.named_by == 'cores' else 1)}"

    @property
    def xpk_type(self) -> str:
        """XPK's --tpu-type: as in the Cloud TPU API, or by topology for chips that the API lacks."""
        return self.api_type if self.entry["api_name"] else f"{self.chip}-{self.topology}"


@functools.cache
def table() -> Mapping[str, Any]:
    """machines.toml."""
    with TABLE.open("rb") as file:
        return tomllib.load(file)


def parse(text: str) -> Accelerator:
    """Read the name of one slice, or of a number of GPUs.

    Raises:
      UserError: not a name, or a slice that the clouds do not offer; the nearest one is named.
    """
    try:
        found = chips.parse(text)
    except errors.UserError as e:
        raise errors.UserError(str(e).replace(f"--topology={text}", f"accelerator {text!r}", 1)) from e
    entries = {**table()["tpu"], **table()["gpu"]}
    if found.chip.name not in entries:
        raise errors.UserError(
            f"accelerator {text!r}: nothing here launches {found.chip.name}; these: {', '.join(entries)}"
        )
    if found.slices > 1:
        raise errors.UserError(
            f"accelerator {text!r} is several slices: give the name of one, and slices = {found.slices}"
        )
    entry = entries[found.chip.name]
    if found.chip.kind == "gpu" and found.chips < found.chip.per_host and found.chips not in entry["per_host"]:
        allowed = f"{', '.join(map(str, entry['per_host']))} or whole hosts of {found.chip.per_host}"
        raise errors.UserError(f"accelerator {text!r}: {found.chip.name} comes in {allowed}")
    return Accelerator(found, entry)
