"""Several real processes on this machine, each with a few fake CPU devices, that do one job after the other together.

As a program: `python -m tests.multiprocess.hosts JOBS.json` is one of them. Programs are compiled once for all jobs of
one kind of run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any
from unittest import mock

from tests import ports
from tests import source
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import machine

# Busy machines: see tests/conftest.py. Unoptimised programs are compiled in three quarters of the time.
FLAGS = "--xla_cpu_collective_call_terminate_timeout_seconds=600 --xla_backend_optimization_level=0"


@dataclasses.dataclass(frozen=True)
class Job:
    """What every process is to do: train or evaluate by `settings` in `workdir`, begun when the file `after` is there.

    changes: of single processes, as a mistake: {process: settings}. versions: each process says it has a jax of its
    own.
    refused: a user's mistake that this process alone comes upon. full: the disk is, while the tuned model is written.
    signal: process 1 is told to stop behind its first update; nothing can follow, as JAX remembers it.
    """

    workdir: pathlib.Path
    settings: config.TrainConfig | config.EvalConfig
    after: pathlib.Path | None = None
    changes: dict[int, config.TrainConfig] = dataclasses.field(default_factory=dict)
    versions: bool = False
    refused: int = -1
    full: bool = False
    signal: bool = False

    def of(self, process: int) -> dict[str, Any]:
        """For one process, as JSON."""
        plain = dataclasses.asdict(self) | {
            "settings": dataclasses.asdict(self.changes.get(process, self.settings)),
            "changes": None,
        }
        return {**plain, "evaluate": isinstance(self.settings, config.EvalConfig)}


def start(
    folder: pathlib.Path, jobs: list[Job], devices: tuple[int, ...], count: int | None = None, **environment: str
) -> list:
    """One process for each number of `devices`, told to expect `count` of them (default: as many as there are)."""
    port = ports.free()
    folder.mkdir(parents=True, exist_ok=True)
    running = []
    for i, own_devices in enumerate(devices):
        file = folder / f"jobs-{i}.json"
        file.write_text(json.dumps([job.of(i) for job in jobs], default=str))
        own = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count or len(devices)),
            "JAX_PROCESS_ID": str(i),
            "JAX_PLATFORMS": "cpu",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9",  # see stand.use_devices
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={own_devices} {FLAGS}",
            **environment,
        }
        command = [sys.executable, "-m", "tests.multiprocess.hosts", str(file)]
        out = (folder / f"output-{i}.txt").open("w")
        running.append(
            subprocess.Popen(command, cwd=source.ROOT, env=os.environ | own, stdout=out, stderr=subprocess.STDOUT)
        )
    return running


def finish(running: list) -> list[int]:
    """Exit codes; whoever hangs is killed."""
    try:
        return [process.wait(source.PATIENCE) for process in running]
    finally:
        for process in running:
            process.kill()


def output(folder: pathlib.Path, i: int) -> str:
    """What process i printed."""
    return (folder / f"output-{i}.txt").read_text()


def programs() -> Any:
    """Context in which runs that differ in their length alone share one train step, as plain JAX users would; yields
    all steps."""
    from vlguard_jax.training import program

    build, made = program.build, {}

    def once(settings: config.TrainConfig, model: Any, lora: Any, mesh: Any, total_updates: int) -> program.Program:
        length = dataclasses.replace(settings.optimizer, max_steps=0)
        same = dataclasses.replace(settings, optimizer=length, run=config.RunSettings(), probe=config.ProbeSettings())
        key = json.dumps([dataclasses.asdict(same), dict(mesh.shape), total_updates])
        if key not in made:
            made[key] = build(settings, model, lora, mesh, total_updates)
        return made[key]

    @contextlib.contextmanager
    def patched() -> Any:
        with mock.patch.object(program, "build", once):
            yield made

    return patched()


def _stopped_soon(batch: Any, mesh: Any) -> Any:
    """In place of feed.to_device: more and more slowly, so that a signal to process 1 arrives within the run however
    busy the machine."""
    import jax

    CALLS.append(len(CALLS))
    if len(CALLS) > 2:  # an update is finished, and there is something to save
        time.sleep(2 ** (len(CALLS) - 3))
    if jax.process_index() == 1 and len(CALLS) == 3:
        signal.raise_signal(signal.SIGTERM)
    return TO_DEVICE[0](batch, mesh)


TO_DEVICE: list[Any] = []
CALLS: list[int] = []


def _full(entry: Any) -> memoryview:
    """In place of safetensors_files._data: a few tensors find room."""
    CALLS.append(len(CALLS))
    if len(CALLS) > 4:
        raise OSError(errno.ENOSPC, "No space left on device")
    return DATA[0](entry)


DATA: list[Any] = []


def _do(job: dict[str, Any]) -> int:
    import jax

    from vlguard_jax.checkpoints import safetensors_files
    from vlguard_jax.parallel import processes
    from vlguard_jax.safety import from_checkpoint
    from vlguard_jax.training import feed
    from vlguard_jax.training import loop

    TO_DEVICE[:], DATA[:], CALLS[:] = [feed.to_device], [safetensors_files._data], []
    while job["after"] and not pathlib.Path(job["after"]).exists():
        time.sleep(0.1)
    refused = job["refused"] == jax.process_index()
    mistake = mock.Mock(side_effect=errors.UserError("chats.json: no such file"))
    versions = {"jax": f"0.{jax.process_index()}"}
    with (
        mock.patch.object(loop.setup, "load_data", mistake) if refused else contextlib.nullcontext(),
        mock.patch.object(processes, "_versions", lambda: versions) if job["versions"] else contextlib.nullcontext(),
        mock.patch.object(feed, "to_device", _stopped_soon) if job["signal"] else contextlib.nullcontext(),
        mock.patch.object(safetensors_files, "_data", _full) if job["full"] else contextlib.nullcontext(),
    ):
        if job["evaluate"]:
            settings = config.resolve(job["settings"], config.EvalConfig)
            from_checkpoint.evaluate(settings, pathlib.Path(job["workdir"]), quiet=True)
            return 0
        result = loop.train(config.resolve(job["settings"], config.TrainConfig), job["workdir"])
        return 0 if result.finished else 75


def main(_: list[str]) -> int:
    """Every job; what a command would end with in one line ends the job, not the process."""
    from vlguard_jax.parallel import joining

    jobs = json.loads(pathlib.Path(sys.argv[1]).read_text())
    joining.start()
    code = 0
    with programs() as made:
        for job in jobs:
            try:
                code = max(code, _do(job))
            except Exception as e:
                line = e if isinstance(e, errors.UserError) else getattr(machine.failure(e), "line", "")
                if len(jobs) == 1 or not line:
                    raise
                print(f"error: {line}", flush=True)
    print("compilations:", [program.step._cache_size() for program in made.values()])
    return code


if __name__ == "__main__":
    from vlguard_jax import cli

    cli.run(main)
