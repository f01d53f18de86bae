"""Peak memory of a program.

On Linux a process that a large one starts counts the large one's peak as its own, so a small process stands between.
"""

from __future__ import annotations

from collections.abc import Sequence
import subprocess
import sys
from typing import Any

_BETWEEN = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
    "print('\\n', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
)


def run(command: Sequence[str], **options: Any) -> tuple[subprocess.CompletedProcess[str], int]:
    """How `command` ended, its output as text, and its peak memory in bytes."""
    done = subprocess.run([sys.executable, "-c", _BETWEEN, *command], capture_output=True, text=True, **options)
    *lines, peak = done.stderr.rstrip().split("\n")
    done.stderr = "\n".join(lines).rstrip()
    return done, int(peak) * (1 if sys.platform == "darwin" else 2**10)
