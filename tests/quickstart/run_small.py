"""Tells a very small story in processes that are stopped at given moments: `python -m tests.quickstart.run_small FOLDER
[MOMENT ...]`.

For each moment one process has to end there, by a signal; the last one has to finish. They are forked from this one,
which has imported everything and started nothing.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import os
from pathlib import Path
import signal
import sys
from typing import Any

import scipy.stats  # noqa: F401 -- which the package imports late: once here, not in every process
import skimage.data  # noqa: F401

from tests.quickstart import stand
from vlguard_jax import config
from vlguard_jax import workdir
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import store
from vlguard_jax.quickstart import arms
from vlguard_jax.quickstart import pictures
from vlguard_jax.quickstart import story
from vlguard_jax.quickstart import tower
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import results
from vlguard_jax.training import metrics

SEED = 1000
ARMS = tuple(arm for arm in arms.ARMS if arm.name in ("llm", "base", "posthoc"))


@dataclasses.dataclass
class Moment:
    """The return of one of the calls of `owner.name`: the first for which `is_it(number of the call, *arguments)`
    holds."""

    sent: signal.Signals
    owner: Any
    name: str
    is_it: Callable[..., bool]
    calls: int = 0


MOMENTS = {
    "drawing": Moment(signal.SIGKILL, pictures, "paint", lambda number, scene: number == 60),
    "first_metrics": Moment(signal.SIGKILL, metrics.Writer, "write", lambda number, *given: number == 1),
    # the save before it is complete then, this one is not
    "checkpoint": Moment(signal.SIGKILL, store.Store, "save", lambda number, *given: number == 2),
    "model_file": Moment(signal.SIGKILL, save, "_write_weights", lambda number, folder, *rest: "base" in str(folder)),
    "evaluation": Moment(
        signal.SIGKILL, results.Lines, "append", lambda number, lines, new: "pictures" in str(lines.path)
    ),
    "between_arms": Moment(
        signal.SIGINT, from_checkpoint, "evaluate", lambda number, config, folder: str(folder).endswith("joint/base")
    ),
    "preempted": Moment(signal.SIGTERM, metrics.Writer, "write", lambda number, *given: number == 3),
}
# How a process ends by them: SIGTERM lets the training save and leave.
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 1}


def make_small() -> None:
    """Few updates, and a checkpoint after every third."""
    whole = arms.train_config

    def train_config(*given: Any) -> config.TrainConfig:
        found = whole(*given)
        return dataclasses.replace(found, run=dataclasses.replace(found.run, save_every=3, log_every=1))

    arms.train_config = train_config
    tower.warm_up = functools.partial(tower.warm_up, count=100, updates=5)


def arm_trap(moment: Moment) -> None:
    """Be sent the signal at that moment."""
    inner = getattr(moment.owner, moment.name)

    @functools.wraps(inner)
    def outer(*given: Any, **named: Any) -> Any:
        returned = inner(*given, **named)
        moment.calls += 1
        if moment.is_it(moment.calls, *given):
            sys.stdout.flush()
            os.kill(os.getpid(), moment.sent)
        return returned

    setattr(moment.owner, moment.name, outer)


def main() -> None:
    """Run to the end, through all moments."""
    folder, *names = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    make_small()
    for moment in [*(MOMENTS[name] for name in names), None]:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            if moment:
                arm_trap(moment)
            with workdir.hold(Path(folder)):
                told = story.tell(Path(folder), SEED, arms=ARMS, sizes=stand.SMALL)
            sys.exit(0 if told else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != (ENDS[moment.sent] if moment else 0):
            sys.exit(f"{moment or 'the last run'}: exit code {code}")


if __name__ == "__main__":
    main()
