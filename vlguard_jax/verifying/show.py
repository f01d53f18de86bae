"""Shows what `verify` found."""

from __future__ import annotations

from collections.abc import Sequence

import rich.box
import rich.table

from vlguard_jax import escape
from vlguard_jax import terminal
from vlguard_jax.verifying import compare


def show(stages: Sequence[compare.Stage]) -> None:
    """Print a table with a line for each stage, and what differs first in each that does not hold."""
    table = rich.table.Table("stage", "compared", "largest difference", "bound", "", box=rich.box.SIMPLE)
    for one in stages:
        word = {True: "holds", False: "DIFFERS", None: "not compared"}[one.holds]
        table.add_row(one.name, *(escape.line(text) for text in (one.compared, one.worst, one.bound)), word)
    terminal.console().print(table)
    for one in stages:
        if one.why:
            terminal.say(f"{one.name}: {one.why}")
