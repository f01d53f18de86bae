"""Starts a process with the flags of vlguard_jax/planning/flags.toml and says which of them the installed compilers
know.

  python launch/check_flags.py

XLA_FLAGS go to the installed jaxlib (the CPU build knows the GPU flags as well), LIBTPU_INIT_ARGS to libtpu, which
needs no TPU for it (`pip install 'jax[tpu]'`). An unknown flag ends a process at its start; where one does, each is
tried alone. Ends with 2 if one is refused.
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
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)  # the package that this program stands in

PROGRAMS = {
    "XLA_FLAGS": "import jax; jax.devices()",
    "LIBTPU_INIT_ARGS": (
        "from jax.experimental import topologies; topologies.get_topology_desc(topology_name='v5e:2x2',"
        " platform='tpu').devices"
    ),
}
SECONDS = 1800  # a process that takes longer to start hangs


def compiler(variable: str) -> str:
    """Name and version of what reads the variable; empty: it is not installed."""
    package = {"XLA_FLAGS": "jaxlib", "LIBTPU_INIT_ARGS": "libtpu"}[variable]
    return f"{package} {importlib.metadata.version(package)}" if importlib.util.find_spec(package) else ""


def starts(variable: str, flags: Sequence[str]) -> bool:
    """Whether a process starts with these flags.

    Raises:
      RuntimeError: it does not start without any flag either.
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
