"""Starts a process with the flags of vlguard_jax/planning/flags.toml and tells which of them the installed compilers
accept.

  python launch/check_flags.py

XLA_FLAGS go to the installed jaxlib (the CPU build also knows the GPU flags), LIBTPU_INIT_ARGS to libtpu, which needs
no TPU for this (`pip install 'jax[tpu]'`). An unknown flag ends a process at its start; if that happens, each flag is
tried alone. Exit code 2 if one is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
import importlib.metadata
import importlib.util
import os
import pathlib
import subprocess
import sys

if __name__ == "__main__":
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)  # the package beside this program

PROGRAMS = {
    "XLA_FLAGS": "import jax; jax.devices()",
    "LIBTPU_INIT_ARGS": (
        "from jax.experimental import topologies; topologies.get_topology_desc(topology_name='v5e:2x2',"
        " platform='tpu').devices"
    ),
}
SECONDS = 1800  # a process that takes longer to start is stuck


def compiler(variable: str) -> str:
    """Name and version of the compiler that reads the variable; empty if it is not installed."""
    package = {"XLA_FLAGS": "jaxlib", "LIBTPU_INIT_ARGS": "libtpu"}[variable]
    return f"{package} {importlib.metadata.version(package)}" if importlib.util.find_spec(package) else ""


def starts(variable: str, flags: Sequence[str]) -> bool:
    """Whether a process starts with these flags.

    Raises:
      RuntimeError: it does not start even without flags.
    """
    environment = {name: value for name, value in os.environ.items() if name not in PROGRAMS}
    environment |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_MIN_LOG_LEVEL": "3",
        variable: " ".join(flags),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[variable]], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    if done.returncode and not flags:
        raise RuntimeError(f"{compiler(variable)} does not start at all: {done.stderr[-1000:]}")
    return done.returncode == 0


def refused(variable: str, flags: Sequence[str]) -> list[str]:
    """The flags that end a process at its start."""
    starts(variable, [])
    return [] if starts(variable, flags) else [flag for flag in flags if not starts(variable, [flag])]


def main(positional: list[str]) -> int:
    """Check every flag of the table."""
    from vlguard_jax import errors
    from vlguard_jax.planning import flags as table

    if positional:
        raise errors.UserError(f"unexpected argument {positional[0]!r}")
    code = errors.EXIT_OK
    for variable in table.VARIABLES:
        listed = list(table.all_flags(variable))
        if not compiler(variable):
            print(f"{variable}: not checked, no compiler for it is installed")
            continue
        bad = refused(variable, listed)
        print(f"{variable}: {compiler(variable)} knows {len(listed) - len(bad)} of {len(listed)} flags")
        for flag in bad:
            code = errors.EXIT_USER_ERROR
            print(f"  refused: {flag}")
    return code


if __name__ == "__main__":
    from vlguard_jax import cli

    cli.run(main, doc=__doc__)
