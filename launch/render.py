"""Turns one launch file into manifests, commands or batch scripts for a cloud or a cluster.

  python -m vlguard_jax.render --target gke launch/examples/posthoc_7b.toml --out launched
  python -m vlguard_jax.render --target slurm sweep --dry_run

Targets: gke (JobSet), xpk, gce (Compute Engine groups), tpu-vm (Cloud TPU API, legacy), skypilot, slurm. A launch file
with a sweep gives one job per cell, start.sh that starts them all, and gather.sh that puts their results into one
table. Nothing is started here. A shipped launch file is found by its name, too. The same in a checkout: python
launch/render.py.
"""

from __future__ import annotations

import pathlib
import shlex
import sys

from absl import flags

if __name__ == "__main__":
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)  # the package beside this program

_TARGET = flags.DEFINE_string("target", None, "gke, xpk, gce, tpu-vm, skypilot or slurm")
_OUT = flags.DEFINE_string("out", "", "folder to write to, for example launched")
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "check everything and print what would be written; write nothing")


def main(positional: list[str]) -> int:
    """Check the launch file and write, or print, the files of its jobs."""
    from launch import jobs
    from vlguard_jax import errors
    from vlguard_jax import escape
    from vlguard_jax import shipped
    from vlguard_jax import terminal

    if len(positional) != 1 or not _TARGET.value:
        raise errors.UserError(
            "name a target and one launch file: python -m vlguard_jax.render --target gke FILE.toml --out DIR"
        )
    if not (_OUT.value or _DRY_RUN.value):
        raise errors.UserError("give --out DIR to write to, or --dry_run to look only")
    launch = jobs.prepare(shipped.launch_file(positional[0]), _TARGET.value)
    if _DRY_RUN.value:
        print(escape.page(jobs.shown(launch)))
        return errors.EXIT_OK
    for path in jobs.write(launch, pathlib.Path(_OUT.value)):
        terminal.say(f"wrote {path}")
    terminal.say(f"start with: cd {shlex.quote(_OUT.value)} && bash start.sh")
    return errors.EXIT_OK


if __name__ == "__main__":
    from vlguard_jax import cli

    cli.run(main, doc=__doc__)
