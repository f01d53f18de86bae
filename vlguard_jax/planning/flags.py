"""The table of compiler flags by chip, flags.toml, as environment variables.

A process with an unknown flag ends at its start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import pathlib
import tomllib
from typing import Any

from vlguard_jax import errors

TABLE = pathlib.Path(__file__).with_name("flags.toml")
VARIABLES = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")


@dataclasses.dataclass(frozen=True)
class Group:
    """Flags that belong together: `--name=value` each, for the environment variable `variable`."""

    name: str
    variable: str
    what: str
    source: str
    flags: tuple[str, ...]


@functools.cache
def _table() -> Mapping[str, Any]:
    with TABLE.open("rb") as file:
        return tomllib.load(file)


def chips() -> tuple[str, ...]:
    """Names of the chips in the table."""
    return tuple(_table()["chips"])


def groups() -> dict[str, Group]:
    """All groups by name."""
    return {
        name: Group(name, group["variable"], group["what"], group["source"], tuple(group["flags"]))
        for name, group in _table()["groups"].items()
    }


def for_chip(chip: str, *, slices: int = 1, offload: bool = False) -> tuple[Group, ...]:
    """The groups that apply to a chip.

    Args:
      chip: a name in `chips()`, such as "v5e".
      slices: TPU slices of the job.
      offload: whether the program offloads to the host's memory.

    Raises:
      UserError: no such chip; the nearest one is named.
    """
    if chip not in chips():
        raise errors.UserError(f"no flags are known for chip {chip!r}{errors.nearest(chip, chips())}")
    entry = _table()["chips"][chip]
    names = [*entry["groups"], *(entry["multislice"] if slices > 1 else ()), *(entry["offload"] if offload else ())]
    return tuple(groups()[name] for name in dict.fromkeys(names))


def environment(chip: str, *, slices: int = 1, offload: bool = False) -> dict[str, str]:
    """Environment variables of a process on `chip`; the flags of all groups joined, each flag once, from its first
    group.

    Raises:
      UserError: no such chip.
    """
    joined: dict[str, dict[str, None]] = {}
    for group in for_chip(chip, slices=slices, offload=offload):
        joined.setdefault(group.variable, {}).update(dict.fromkeys(group.flags))
    found = {variable: " ".join(flags) for variable, flags in joined.items()}
    return {**found, **_table()["chips"][chip]["env"]}


def all_flags(variable: str) -> Iterator[str]:
    """Every flag in the table for one environment variable, once."""
    yield from dict.fromkeys(flag for group in groups().values() if group.variable == variable for flag in group.flags)


def checked() -> tuple[Mapping[str, Any], ...]:
    """What was checked against which compiler: {variable, compiler, date, refused}."""
    return tuple(_table()["checked"])
