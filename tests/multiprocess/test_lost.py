"""A process that is killed: the other one of the run ends soon, with 75 and a line."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests import ports
from tests import source

TALKING = """
import time

from vlguard_jax import cli


def main(_):
    from vlguard_jax.parallel import joining

    joining.start()
    import numpy as np
    from jax.experimental import multihost_utils

    for i in range(10_000):
        multihost_utils.process_allgather(np.int32(i))
        if i == 2:
            print("talking", flush=True)
        time.sleep(0.02)


cli.run(main)
"""


@pytest.mark.parity
@pytest.mark.parametrize("victim", [0, 1], ids=["the first", "another"])
def test_a_lost_process_ends_the_other(tmp_path: pathlib.Path, victim: int) -> None:
    """Of the first one, which the others' heartbeats go to, JAX's own thread hears too, and aborts a little later."""
    port, running = ports.free(), []
    outputs = [tmp_path / f"output-{i}.txt" for i in (0, 1)]
    for i, output in enumerate(outputs):
        own = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(i)}
        own |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        with output.open("w") as out:
            command = [sys.executable, "-c", TALKING]
            running.append(
                subprocess.Popen(command, cwd=source.ROOT, env=os.environ | own, stdout=out, stderr=subprocess.STDOUT)
            )
    try:
        while not all("talking" in output.read_text() for output in outputs):
            assert all(process.poll() is None for process in running), [output.read_text() for output in outputs]
            time.sleep(0.05)
        running[victim].kill()
        began = time.monotonic()
        code = running[1 - victim].wait(source.PATIENCE)
        said = outputs[1 - victim].read_text()
        assert code == 75, said
        assert time.monotonic() - began < 30
        assert "error: another process of this run has gone" in said and "start the same command again" in said
    finally:
        for process in running:
            process.kill()
