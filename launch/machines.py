"""Accelerators by the names that the clouds give them: v5e-16, v5e:4x4, v5p:2x2x2, h100:8."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import difflib
import functools
import math
import pathlib
import re
import tomllib
from typing import Any

from vlguard_jax import errors

TABLE = pathlib.Path(__file__).with_name("machines.toml")
GPUS_PER_HOST = 8


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One TPU slice, or the GPUs of one job. `entry` is the chip's part of machines.toml."""

    chip: str
    chips: int
    topology: str  # "4x4"; empty: GPUs
    entry: Mapping[str, Any]

    @property
    def tpu(self) -> bool:
        """Whether this is a TPU slice."""
        return bool(self.topology)

    @property
    def name(self) -> str:
        """As plan takes it: v5e:4x4 or h100:8."""
        return f"{self.chip}:{self.topology or self.chips}"

    @property
    def hosts(self) -> int:
        """Machines of a slice (GKE, Compute Engine), or of the GPU job."""
        return max(1, self.chips // (self.entry["chips_per_host"] if self.tpu else GPUS_PER_HOST))

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
        """Accelerator type in the Cloud TPU API; the chip itself where the API does not have it."""
        return f"{self.entry['api_name'] or self.chip}-{self.chips * (2 if self.entry['names'] == 'cores' else 1)}"

    @property
    def xpk_type(self) -> str:
        """XPK's --tpu-type: as in the Cloud TPU API, by topology for chips that it does not have."""
        return self.api_type if self.entry["api_name"] else f"{self.chip}-{self.topology}"


@functools.cache
def table() -> Mapping[str, Any]:
    """machines.toml."""
    with TABLE.open("rb") as file:
        return tomllib.load(file)


def known() -> list[str]:
    """All accelerators with their topologies, as CHIP:TOPOLOGY or CHIP:NUMBER."""
    tpus = [f"{chip}:{topology}" for chip, entry in table()["tpu"].items() for topology in entry["topologies"]]
    return tpus + [f"{chip}:{number}" for chip, entry in table()["gpu"].items() for number in (*entry["per_host"], 16, 32, 64)]


def parse(text: str) -> Accelerator:
    """Read v5e:4x4, v5e-16 (counted as Google counts: chips, or cores for v4, v5p and tpu7x), or h100:8.

    Raises:
      UserError: no such chip, topology or number; the nearest one is named.
    """
    match = re.fullmatch(r"(?:tpu-)?([a-z0-9]+?)(?::(\d+(?:x\d+)*)|-(\d+))", text)
    chip = {"v5litepod": "v5e"}.get(match[1], match[1]) if match else ""
    if match and chip in table()["gpu"]:
        return _gpus(text, chip, match[2] or match[3])
    if match and chip in table()["tpu"]:
        return _slice(text, chip, match)
    close = difflib.get_close_matches(text, known(), n=1, cutoff=0.5)
    chips = ", ".join([*table()["tpu"], *table()["gpu"]])
    raise errors.UserError(f"accelerator {text!r} is unknown; " + (f"did you mean {close[0]!r}?" if close else f"chips: {chips}"))


def _gpus(text: str, chip: str, number: str) -> Accelerator:
    entry = table()["gpu"][chip]
    count = int(number) if number.isdigit() else 0
    if count not in entry["per_host"] and (count < GPUS_PER_HOST or count % GPUS_PER_HOST):
        allowed = ", ".join(map(str, entry["per_host"]))
        raise errors.UserError(f"accelerator {text!r}: {chip} comes in {allowed} or whole hosts of {GPUS_PER_HOST}")
    return Accelerator(chip, count, "", entry)


def _slice(text: str, chip: str, match: re.Match[str]) -> Accelerator:
    entry = table()["tpu"][chip]
    sizes = {topology: math.prod(map(int, topology.split("x"))) for topology in entry["topologies"]}
    if match[2] in sizes:
        return Accelerator(chip, sizes[match[2]], match[2], entry)
    if match[2] and "x" in match[2]:
        raise errors.UserError(f"accelerator {text!r}: {chip} has no topology {match[2]}{errors.nearest(match[2], sizes)}")
    per_chip = 2 if entry["names"] == "cores" else 1
    numbers = {f"{chip}-{size * per_chip}": topology for topology, size in sizes.items()}
    topology = numbers.get(f"{chip}-{match[2] or match[3]}", "")
    if not topology:
        counted = "cores, two a chip" if per_chip == 2 else "chips"
        close = min(numbers, key=lambda name: abs(int(name.rsplit("-", 1)[1]) - int(match[2] or match[3])))
        raise errors.UserError(
            f"accelerator {text!r}: {chip} has no slice of that size (the number counts {counted}); did you mean {close!r}?"
        )
    return Accelerator(chip, sizes[topology], topology, entry)
