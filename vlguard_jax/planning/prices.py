"""The price of a chip: from prices.toml, dated, or from the user."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import pathlib
import tomllib
from typing import Any

TABLE = pathlib.Path(__file__).with_name("prices.toml")
OVERRIDE = "--price"  # the source of a price that the user gives


@dataclasses.dataclass(frozen=True)
class Price:
    """US dollars per chip-hour, and the source."""

    dollars: float
    source: str


@functools.cache
def _table() -> dict[str, Any]:
    with TABLE.open("rb") as file:
        return tomllib.load(file)


def get(chip: str, override: float | None = None) -> Price | None:
    """The on-demand price of a chip; None if neither the table nor the user gives one."""
    if override is not None:
        return Price(override, OVERRIDE)
    entry = _table().get(chip)
    if entry is None:
        return None
    as_of = entry["as_of"]
    day = as_of.isoformat() if isinstance(as_of, datetime.date) else str(as_of)
    return Price(entry["on_demand"], f"{entry['source']}, {day}")
