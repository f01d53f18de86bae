"""The cells of a sweep: every arm with every value of its axes.

Without arms there is one nameless arm. An arm's own axes go before the sweep's of the same name, and its texts fill
placeholders of the steps; they may hold placeholders themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import itertools
import math
import pathlib
import re

from launch.texts import Value
from vlguard_jax import errors

ARM = "arm"  # the axis that holds the arm's name
RESERVED = ("bucket", "job", "name")
MOST = 1000  # jobs of one launch file


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of the table that a sweep makes: its own axes, and texts for the steps."""

    sweep: Mapping[str, tuple[Value, ...]] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)


def axes(sweep: Mapping[str, tuple[Value, ...]], arms: Mapping[str, Arm]) -> dict[str, tuple[Value, ...]]:
    """Every axis with all of its values."""
    found: dict[str, tuple[Value, ...]] = {ARM: tuple(arms)} if arms else {}
    for part in (sweep, *(arm.sweep for arm in arms.values())):
        for axis, values in part.items():
            found[axis] = tuple(dict.fromkeys((*found.get(axis, ()), *values)))
    return found


def of(
    sweep: Mapping[str, tuple[Value, ...]], arms: Mapping[str, Arm]
) -> Iterator[tuple[dict[str, Value], Mapping[str, str]]]:
    """(values of the axes, texts of the arm) of every cell, in the order of the file."""
    for name, arm in arms.items() or [("", Arm())]:
        own = {**sweep, **arm.sweep}
        for values in itertools.product(*own.values()):
            cell: dict[str, Value] = {ARM: name} if name else {}
            yield cell | dict(zip(own, values, strict=True)), arm.texts


def check(sweep: Mapping[str, tuple[Value, ...]], arms: Mapping[str, Arm], path: pathlib.Path) -> None:
    """Raise UserError where names or numbers of axes and arms are wrong."""
    taken = (*RESERVED, ARM) if arms else RESERVED
    _check_axes(sweep, taken, f"{path}: sweep")
    for name, arm in arms.items():
        where = f"{path}: arms.{errors.short(name)[1:-1]}"
        if not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_]*", name):
            raise errors.UserError(f"{where}: the name of an arm has letters, digits, '-' and '_'")
        _check_axes(arm.sweep, taken, f"{where}.sweep")
        for text in arm.texts:
            if text in (*taken, *sweep, *arm.sweep) or not text.isidentifier():
                raise errors.UserError(f"{where}.texts: {errors.short(text)} is taken, or is no name")
    count = sum(
        math.prod(len(values) for values in {**sweep, **arm.sweep}.values()) for arm in arms.values() or [Arm()]
    )
    if count > MOST:
        raise errors.UserError(
            f"{path}: the sweep has {count:,} cells; at most {MOST:,} jobs come of one launch file: split it"
        )


def _check_axes(sweep: Mapping[str, tuple[Value, ...]], taken: tuple[str, ...], where: str) -> None:
    for axis, values in sweep.items():
        if axis in taken or not axis.isidentifier():
            raise errors.UserError(f"{where}: {errors.short(axis)} cannot be the name of an axis")
        if not values or len(set(map(str, values))) < len(values):
            raise errors.UserError(
                f"{where}.{axis} must be a list of different values, not {errors.short(list(values))}"
            )
