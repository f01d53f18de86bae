"""Several real processes on this machine, each with a few fake CPU devices, that train together.

As a program: `python -m tests.multiprocess.hosts SETTINGS.json WORKDIR` is one of them.
"""

import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys

from vlguard_jax import config

SECONDS = 240


def start(folder: pathlib.Path, settings: list[config.TrainConfig], devices: int, count: int | None = None, **environment: str) -> list:
    """One process for each of `settings`, told to expect `count` of them (default: as many as there are)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    running = []
    for i, of_process in enumerate(settings):
        file = folder / f"settings-{i}.json"
        file.write_text(json.dumps(dataclasses.asdict(of_process)))
        own = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count or len(settings)),
            "JAX_PROCESS_ID": str(i),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            **environment,
        }
        command = [sys.executable, "-m", "tests.multiprocess.hosts", str(file), str(folder)]
        out = (folder / f"output-{i}.txt").open("w")
        running.append(subprocess.Popen(command, env=os.environ | own, stdout=out, stderr=subprocess.STDOUT))
    return running


def finish(running: list) -> list[int]:
    """Exit codes; whoever is still there after SECONDS is killed."""
    try:
        return [process.wait(SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()


def output(folder: pathlib.Path, i: int) -> str:
    """What process i printed."""
    return (folder / f"output-{i}.txt").read_text()


def main(_: list[str]) -> int:
    from vlguard_jax.parallel import processes
    from vlguard_jax.training import loop

    settings, workdir = sys.argv[1:]
    processes.start()
    result = loop.train(config.resolve(json.loads(pathlib.Path(settings).read_text()), config.TrainConfig), workdir)
    return 0 if result.finished else 75


if __name__ == "__main__":
    from vlguard_jax import cli

    cli.run(main)
