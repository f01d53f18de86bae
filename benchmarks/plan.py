"""How long `plan --estimate` takes from start to end, for every shipped training config and the largest evaluation.

  python benchmarks/plan.py

Each is started as a user starts it, a few times; the median counts. Prints one table, or with --json one JSON object.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import time

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors
from vlguard_jax.ranges import Range

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table")
_TIMES = cli.define_number("times", int, 3, Range(1, 1000), "starts of each; the median counts")

BAR = 5.0  # seconds
ROOT = pathlib.Path(__file__).parent.parent
TOPOLOGY = "v5e:4x4"


def main(positional: list[str]) -> int:
    """Measure, then print."""
    if positional:
        raise errors.UserError("plan.py takes --times and --json; see --help")
    found = {name: seconds(name) for name in configs()}
    if _JSON.value:
        print(json.dumps({"bar": BAR, "seconds": found}))
    else:
        show(found)
    return errors.EXIT_OK


def configs() -> list[str]:
    """The shipped configs that name a model of known size, each in its own mode and packed."""
    trainings = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs" / "train").glob("llava_*.py"))
    packed = [f"{name} --config.data.mode=pack" for name in trainings]
    return [*trainings, *packed, "configs/released/llava_v15_13b_posthoc.py"]


def seconds(name: str) -> float:
    """Median wall clock of a start."""
    config, *more = name.split()
    command = [
        sys.executable,
        "-m",
        "vlguard_jax.plan",
        f"--config={config}",
        *more,
        f"--topology={TOPOLOGY}",
        "--estimate",
    ]
    taken = []
    for _ in range(_TIMES.value):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def show(found: dict[str, float]) -> None:
    """Print the table."""
    from rich import console as rich_console
    from rich import table as rich_table

    table = rich_table.Table(
        title=f"plan --estimate --topology {TOPOLOGY}, median of {_TIMES.value}; at most {BAR:g} s"
    )
    table.add_column("config")
    table.add_column("s", justify="right")
    for name, taken in found.items():
        table.add_row(name, f"{taken:.2f}")
    console = rich_console.Console()
    (console if console.is_terminal else rich_console.Console(width=120)).print(table)


if __name__ == "__main__":
    cli.run(main)
