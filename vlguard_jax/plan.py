"""What a run would need and cost, before anything is rented: whether it fits, how long it takes, what it costs.

  python -m vlguard_jax.plan --config configs/train/llava_v15_7b_posthoc.py --topology v5e:4x4 [--json FILE]
  python -m vlguard_jax.plan --config configs/train/llava_v15_7b_posthoc.py --topology v5e:4x4 --estimate
  python -m vlguard_jax.plan --config configs/train/llava_v15_7b_posthoc.py --sweep --deadline 2
  python -m vlguard_jax.plan --sweep launch/experiments/table2.toml [--topology h100:8] [--json FILE]
  python -m vlguard_jax.plan --backtest

--topology: v4, v5e, v5p, v6e, tpu7x in the shapes that are offered (v5e:4x4, v5e-16), h100:N, h200:N, a100:N, several
slices 2xv5e:4x4. Configs that train and evaluate would refuse there, such as a mesh that does not divide the model's
sizes, are refused with the same line. The programs (the step of a training run, or prefill and decode of an evaluation)
are compiled for the slice by the TPU compiler, which needs no TPU (pip install "jax[tpu]"; minutes for 7B), or
for h100 and h200 by the CUDA compiler, which needs no GPU (pip install "jax[cuda13]", 4 GB; half a minute).
--estimate computes everything by formula instead, in seconds. Neither reads weights. If the config's model is not on
this machine its size is taken from its name, or from --model; without its data, lengths are assumed, and the output
says so. --sweep plans all usual slices and names the cheapest that finishes within --deadline hours. With
a launch file --sweep prices all of its jobs on their own accelerators, or on --topology, and adds them up. --backtest
shows how well the same formulas predict published runs.
"""

from __future__ import annotations

import json
import math

from absl import flags

from vlguard_jax import cli
from vlguard_jax import config_flag
from vlguard_jax import errors
from vlguard_jax import shipped
from vlguard_jax.ranges import Range

CONFIG = config_flag.define("plan", "config of a training or an evaluation, by name or file, NAME:argument")
TOPOLOGY = flags.DEFINE_string("topology", "", "the slice; with --sweep the chips to look at, comma-separated")
ESTIMATE = flags.DEFINE_boolean("estimate", False, "by formula, without the compiler")
MODEL = flags.DEFINE_string("model", "", "7b or 13b: sizes to take in place of config.model's")
PRICE = cli.define_number("price", float, None, Range(0, 1e6), "US dollars per chip and hour, in place of the table's")
JSON = flags.DEFINE_string("json", "", "write the figures to this file")
SWEEP = flags.DEFINE_boolean("sweep", False, "plan all usual slices by formula and name the cheapest")
DEADLINE = cli.define_number(
    "deadline", float, 0.0, Range(0, 1e6), "--sweep: hours within which the run must be done; 0: any"
)
BACKTEST = flags.DEFINE_boolean("backtest", False, "predict published runs")
MARKDOWN = flags.DEFINE_string("markdown", "", "--backtest: write the table to this file")


def main(positional: list[str]) -> int:
    """Plan what the flags describe."""
    if positional and not (SWEEP.value and CONFIG.value is None and len(positional) == 1):
        raise errors.UserError(f"unexpected argument {positional[0]!r}; settings: --config.name=value, or --sweep FILE")
    from vlguard_jax import terminal
    from vlguard_jax.planning import advice  # late: --help needs none of it
    from vlguard_jax.planning import backtest
    from vlguard_jax.planning import run
    from vlguard_jax.planning import show

    console = terminal.console()
    if BACKTEST.value:
        found = backtest.results()
        show.backtests(found, console)
        if MARKDOWN.value:
            run.write(MARKDOWN.value, backtest.markdown(found), "--markdown")
        content = backtest.as_json(found)
    elif positional:
        pricing = shipped.launching("pricing")
        run.check_not_given((DEADLINE, MODEL, MARKDOWN), positional[0])
        content = pricing.run(shipped.launch_file(positional[0]), TOPOLOGY.value, PRICE.value, console)
    elif CONFIG.value is None:
        raise errors.UserError("--config FILE is needed, or --backtest; see --help")
    elif SWEEP.value:
        settings, deadline = run.settings_of(CONFIG.value), DEADLINE.value or math.inf
        planner = run.planner(settings, MODEL.value, PRICE.value)
        swept = advice.sweep(settings, planner, run.chip_names(TOPOLOGY.value))
        show.sweep(swept, deadline, console)
        content = swept.as_json(deadline)
    else:
        settings, topology = run.settings_of(CONFIG.value), run.topology_of(TOPOLOGY.value)
        formula = planner = run.planner(settings, MODEL.value, PRICE.value)
        if not ESTIMATE.value:
            planner = run.planner(settings, MODEL.value, PRICE.value, run.compiling(console.print))
        made = planner(settings, topology)
        show.plan(made, console)
        content = made.as_json()
        if not made.fits:
            changes = advice.options(settings, topology, formula)
            changes = changes if ESTIMATE.value else advice.confirmed(changes, planner)
            show.options(changes, console)
            content["changes"] = [change.as_json() for change in changes]
    if JSON.value:
        run.write(JSON.value, json.dumps(content, indent=1, allow_nan=False) + "\n", "--json")
        console.print(f"wrote {JSON.value}")
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main)
