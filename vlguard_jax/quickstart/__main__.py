"""The whole story in miniature, in one process, without downloads: draw a world, align, break, repair, measure.

  python -m vlguard_jax.quickstart --workdir runs/quickstart

Every arm is trained and evaluated by the functions of a 7B run. Writes to WORKDIR report.html (open it in a browser),
summary.json (the result rows of all arms), probes.json and claims.json, and prints the table. Started again, it resumes
where it stopped.
"""

from __future__ import annotations

from pathlib import Path
import time

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors
from vlguard_jax import workdir
from vlguard_jax.ranges import Range

WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "folder of the run; the same command again resumes there")
ITEMS = flags.DEFINE_enum(
    "items", "test", ["test", "tuning"], "questions to ask: tuning items are there to choose settings by"
)
SEED = cli.define_number(
    "seed", int, 3, Range(0, 2**32 - 1), "seed of the world, the weights and the order of the data"
)


def main(positional: list[str]) -> int:
    """Run all arms."""
    if positional or not WORKDIR.value:
        raise errors.UserError("the quickstart takes --workdir DIR, --seed and --items only; see --help")
    from vlguard_jax import terminal
    from vlguard_jax.parallel import programs
    from vlguard_jax.quickstart import story  # late: --help needs no jax

    programs.keep()
    started = time.monotonic()
    with workdir.hold(Path(WORKDIR.value)):
        finished = story.tell(Path(WORKDIR.value), SEED.value, items=ITEMS.value)
    if not finished:
        print("stopped; start the same command again to go on")
        return errors.EXIT_RESTART
    terminal.say(f"{WORKDIR.value}/report.html written after {time.monotonic() - started:.0f} s")
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main)
