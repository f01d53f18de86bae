"""How a training run scales over chips, by plan's formulas: 8 to 256 chips of one kind.

  python benchmarks/scaling.py --config llava_v15_7b_posthoc --chips v5e
  python benchmarks/scaling.py --config llava_v15_13b_posthoc_lora --chips v5e --largest 64 --compile

One line per usual slice: seconds a step, speed-up over the smallest slice that fits and how much of it is lost, MFU,
hours, dollars, and where the recipe's global batch stops filling the chips. These are estimates, not measurements;
`plan --backtest` tells how good the formulas are. With --compile memory and traffic are those of the programs that the
TPU compiler makes, one to five minutes for each slice. Prints one table per kind of chip, or with --json one JSON
object.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Any

from absl import flags

from vlguard_jax import cli
from vlguard_jax import config_flag
from vlguard_jax import errors
from vlguard_jax.ranges import Range

_CONFIG = config_flag.define("train", "config of a training, by name or file; train/llava_v15_7b_posthoc if not given")
_CHIPS = flags.DEFINE_list("chips", ["v5e", "v5p", "v6e", "h100"], "kinds of chips, comma-separated")
_FROM = cli.define_number("smallest", int, 8, Range(1, 2**16), "fewest chips")
_TO = cli.define_number("largest", int, 256, Range(1, 2**16), "most chips")
_MODEL = flags.DEFINE_string("model", "", "7b or 13b: sizes to take in place of config.model's")
_COMPILE = flags.DEFINE_boolean(
    "compile", False, "compile every slice's step (TPU chips; needs libtpu, no chip)", allow_override=True
)
_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)

Figures = dict[str, Any]


def main(positional: list[str]) -> int:
    """Plan every slice, print."""
    if positional:
        raise errors.UserError(
            "scaling.py takes --config, --chips, --smallest, --largest, --model, --compile and --json; see --help"
        )
    from vlguard_jax.planning import run

    with contextlib.redirect_stdout(sys.stderr):
        settings = run.settings_of(_CONFIG.value)
        measure = run.compiling(print) if _COMPILE.value else None
        planner = run.planner(settings, _MODEL.value, measure=measure)
        found = {name: of_chip(settings, planner, name) for name in run.chip_names(",".join(_CHIPS.value))}
    source = "compiled memory and traffic, estimated times" if _COMPILE.value else "estimated"
    told = "\n".join(table(name, lines, source) for name, lines in found.items())
    print(json.dumps({"source": source, "chips": found}, allow_nan=False) if _JSON.value else told)
    return errors.EXIT_OK


def of_chip(settings: Any, planner: Any, name: str) -> Figures:
    """Every usual slice of a chip, and the number of chips from which more do not help (None: there is none)."""
    from vlguard_jax.planning import chips

    chip = chips.known()[name]
    lines = []
    for shape in chips.shapes(chip):
        if _FROM.value <= math.prod(shape) <= _TO.value:
            lines.append(line_of(planner(settings, chips.Topology(chip, shape))))
    if not lines:
        raise errors.UserError(f"--smallest={_FROM.value} --largest={_TO.value}: {name} has no usual slice in between")
    base = next((line for line in lines if line["fits"]), lines[0])
    for line in lines:
        line["speedup"] = base["step_seconds"] / line["step_seconds"]
        line["efficiency"] = line["speedup"] * base["chips"] / line["chips"]
    return {
        "slices": lines,
        "base": base["topology"],
        "stops_at": next((line["chips"] for line in lines if line["stops"]), None),
    }


def line_of(made: Any) -> Figures:
    """The shown figures of a plan."""
    return {
        "topology": made.topology.name,
        "chips": made.topology.chips,
        "fits": made.fits,
        "peak_gib": made.per_chip["peak_gib"],
        "step_seconds": made.step_seconds["expected"],
        "samples_per_second": made.step["conversations"] / made.step_seconds["expected"],
        "mfu": made.mfu["expected"],
        "hours": made.hours["total"],
        "dollars": made.dollars,
        "stops": made.stops,
    }


def table(name: str, found: Figures, source: str) -> str:
    """The figures of one chip as text. source: what kind of figures they are."""
    from rich import console as rich_console
    from rich import table as rich_table

    shown = rich_table.Table(title=f"{name}: {source}; speed-up over {found['base']}")
    for heading in (
        "slice",
        "fits",
        "GiB a chip",
        "s a step",
        "samples/s",
        "speed-up",
        "efficiency",
        "MFU",
        "hours",
        "$",
    ):
        shown.add_column(heading, justify="left" if heading in ("slice", "fits") else "right")
    for line in found["slices"]:
        shown.add_row(
            line["topology"],
            "yes" if line["fits"] else "no",
            f"{line['peak_gib']:.1f}",
            f"{line['step_seconds']:.2f}",
            f"{line['samples_per_second']:.1f}",
            f"{line['speedup']:.2f}",
            f"{line['efficiency']:.0%}",
            f"{line['mfu']:.0%}",
            f"{line['hours']:.2f}",
            "-" if line["dollars"] is None else f"{line['dollars']:,.2f}",
        )
    console = rich_console.Console(width=132)
    with console.capture() as captured:
        console.print(shown)
    stop = next((line for line in found["slices"] if line["stops"]), None)
    text = (
        f"the global batch stops scaling at {stop['chips']} chips: {stop['stops']}"
        if stop
        else "the global batch still scales here"
    )
    return captured.get() + text


if __name__ == "__main__":
    config_flag.unless_given("train/llava_v15_7b_posthoc", sys.argv)
    cli.run(main, doc=__doc__)
