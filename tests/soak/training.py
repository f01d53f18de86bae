"""Kills a training from outside, `kill -9` at random moments by the clock, and compares what its resumed runs leave.

  python -m tests.soak.training --kills 50
  ... --processes 2 --kills 10            # two processes; one of them is killed, and the other has to end by itself
  ... --at data,compile,step,save,export  # SIGTERM at these points, each in a run of its own: 75, soon, and saved
  ... --at step,save --signal KILL        # the same with kill -9; STOP: the last process stands still for a while
  ... --kills 10 --bucket                 # where only files can be renamed, as in a mounted bucket
  ... --kills 20 -- --config FILE --config.optimizer.max_steps=40 --config.run.save_every=4    # a run of your own

A tiny model is trained for a few updates and saved after every second one. The same command is started again after each
kill, until it ends: then its model has the bytes of an uninterrupted run's, and each update is in metrics.jsonl once,
with the same loss and the same conversations' tokens. After each kill the run has to go on from the newest checkpoint
that was complete. All runs of one process share compiled programs, so that few kills are spent on the compiler.
The last line says what the kills hit; exit code 0 only if nothing was lost, changed or done twice.
"""

from __future__ import annotations

from collections import Counter
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from tests import ports
from tests import source
from tests.soak import flags as flags_lib
from tests.soak import watched
from tests.soak import watched_training

CLOCK = ("step_seconds", "tokens_per_second", "input_wait")  # of a line of metrics: may differ
SAVED = "save"  # hit too where a save goes on in the background
SLOW = 20.0  # seconds that a slow process stands still
AGAIN = "start the same command again"
START = 60  # seconds that a process waits for its fellow at the start
BOUND = 150.0  # seconds after which a process whose fellow was killed must have ended


def material(top: pathlib.Path) -> list[str]:
    """Flags of a run over a tiny model and conversations, which are made in `top`."""
    from tests.training import stand

    for name in ("init", "pictures"):
        shutil.copytree(stand.folder() / name, top / name)
    shutil.copy(stand.folder() / "chats.json", top)
    (top / "config.py").write_text(
        "from vlguard_jax import config\n\n\ndef get_config():\n    c = config.base_train_config()\n"
        f"    c.model.path = {str(top / 'init')!r}\n    c.data.cache = {str(top / 'cache')!r}\n"
        "    c.data.batch_size, c.data.group_size, c.data.max_len, c.data.length_multiple = 8, 4, 160, 160\n"
        "    c.optimizer.epochs, c.optimizer.learning_rate = 4.0, 1e-3\n"
        "    c.lora.rank, c.lora.alpha, c.lora.dropout = 4, 8.0, 0.3\n"
        "    c.precision.compute = c.precision.params = c.precision.frozen = 'fp32'\n"
        "    c.run.save_every, c.run.keep, c.run.tensorboard, c.run.export = 2, 2, False, 'llava'\n"
        "    c.data.sources = {'chats': config.source("
        f"path={str(top / 'chats.json')!r}, images={str(top / 'pictures')!r})}}\n    return c\n"
    )
    return [f"--config={top / 'config.py'}"]


class Run:
    """One start of the command, in one or several processes."""

    def __init__(self, flags: list[str], workdir: pathlib.Path, processes: int):
        self._workdir, port = workdir, ports.free()
        self.phases = [workdir.with_suffix(f".phase-{i}") for i in range(processes)]
        self.outputs = [workdir.with_suffix(f".output-{i}") for i in range(processes)]
        self.running = []
        for i, (phase, output) in enumerate(zip(self.phases, self.outputs, strict=True)):
            phase.unlink(missing_ok=True)
            command = [sys.executable, "-m", "tests.soak.watched_training", str(phase), *flags, f"--workdir={workdir}"]
            own = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"), "XLA_FLAGS": ""}
            if processes == 1:
                own["JAX_COMPILATION_CACHE_DIR"] = str(workdir.parent / "programs")
                own["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
            else:
                own |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(processes)}
                own |= {"VLGUARD_START_TIMEOUT": str(START)}
                own |= {"JAX_PROCESS_ID": str(i), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
            with output.open("w") as out:
                self.running.append(
                    subprocess.Popen(
                        command, cwd=source.ROOT, env=os.environ | own, stdout=out, stderr=subprocess.STDOUT
                    )
                )

    def finish(self) -> None:
        """Wait for all. Raises RuntimeError unless each ends with 0."""
        codes = [process.wait(source.PATIENCE) for process in self.running]
        if any(codes):
            raise RuntimeError(f"exit codes {codes}: {self.said()[-4000:]}")

    def kill(self, seconds: float, victim: int) -> str | None:
        """Kill one process after so many seconds, and wait for the others; what was hit, None where all had ended.

        Raises:
          RuntimeError: another process does not end within BOUND, or not with 75 and a line that tells it to start
            again; with 2 where the killed one had not come yet.
        """
        try:
            self.running[victim].wait(seconds)
        except subprocess.TimeoutExpired:
            self.running[victim].kill()
            self.running[victim].wait()
        else:
            self.finish()
            return None
        hit = watched.read(self.phases[victim], watched_training.PHASES)
        saving = any(unfinished(self._workdir))
        began = time.monotonic()
        for i, process in enumerate(self.running):
            if i == victim:
                continue
            try:
                code = process.wait(BOUND)
            except subprocess.TimeoutExpired:
                process.kill()
                raise RuntimeError(f"process {i} did not end within {BOUND:g} s: {self.said(i)[-4000:]}") from None
            missing = code == 2 and "not all of" in self.said(i)  # it was killed before they had joined
            if not missing and (code not in (0, 75) or (code == 75 and AGAIN not in self.said(i))):
                raise RuntimeError(f"process {i} ended with {code}: {self.said(i)[-4000:]}")
            print(f"  the other one ended with {code} after {time.monotonic() - began:.1f} s", flush=True)
        return SAVED if saving and hit not in ("start", "load") else hit

    def reach(self, at: str) -> None:
        """Wait until the first process is in a phase, for the second time where it comes again, or has ended."""
        number = 1 if at in ("start", "load", "compile", "export") else 2
        before, entered = "", 0
        while entered < number and self.running[0].poll() is None:
            now = watched.read(self.phases[0], watched_training.PHASES)
            entered += now == at != before
            before = now
            time.sleep(0.001)

    def end(self, number: int) -> tuple[int, float]:
        """Send the first process a signal: (the exit code of the last one, seconds to the end of all)."""
        self.running[0].send_signal(number)
        began = time.monotonic()
        codes = [process.wait(source.PATIENCE) for process in self.running]
        return codes[-1], time.monotonic() - began

    def pause(self, process: int, seconds: float) -> None:
        """Let a process stand still for so long, as a host that is slow."""
        self.running[process].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.running[process].send_signal(signal.SIGCONT)

    def said(self, process: int = 0) -> str:
        """What a process printed."""
        return self.outputs[process].read_text(errors="replace")


def unfinished(workdir: pathlib.Path) -> list[str]:
    """The folders of saves that did not end."""
    found = [path.name for path in workdir.glob("checkpoints/*") if path.is_dir() and path.name[0].isdigit()]
    whole = (
        (lambda name: (workdir / "checkpoints" / name / "commit_success.txt").exists()) if _bucket() else str.isdigit
    )
    return [name for name in found if not whole(name)]


def newest(workdir: pathlib.Path) -> int:
    """The newest complete checkpoint, 0 without one."""
    names = {path.name for path in workdir.glob("checkpoints/*")} - set(unfinished(workdir))
    return max((int(name) for name in names if name.isdigit()), default=0)


def _bucket() -> bool:
    return bool(os.environ.get(watched_training.BUCKET))


def steps(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock; a torn last line is left out."""
    path = workdir / "metrics.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.exists() else []
    return [{name: value for name, value in json.loads(line).items() if name not in CLOCK} for line in whole]


def results(workdir: pathlib.Path) -> dict[str, Any]:
    """What a run leaves: its metrics, and the hash of every file of its model."""
    found: dict[str, Any] = {"metrics.jsonl": steps(workdir)}
    for path in sorted((workdir / "model").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(workdir))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """One line for each thing that is not as it should be."""
    said = [f"{name}: in one run only" for name in sorted(found.keys() ^ expected.keys())]
    return said + [
        f"{name}: differs" for name in sorted(found.keys() & expected.keys()) if found[name] != expected[name]
    ]


def campaign(top: pathlib.Path, flags: list[str], kills: int, processes: int, seed: int) -> tuple[str, bool]:
    """(what happened, in a line; whether nothing was lost)."""
    Run(flags, top / "whole", processes).finish()  # compiles
    began = time.monotonic()
    Run(flags, top / "again", processes).finish()
    seconds, expected, rng = time.monotonic() - began, results(top / "whole"), random.Random(seed)
    print(f"uninterrupted: {len(expected['metrics.jsonl'])} updates in {seconds:.1f} s", flush=True)
    wrong = [f"again: {one}" for one in differences(results(top / "again"), expected)]
    hit: Counter[str] = Counter()
    number, interrupted, lost, before = 0, False, 0, 0
    while hit.total() < kills or interrupted:
        workdir = top / f"run-{number}"
        run = Run(flags, workdir, processes)
        victim, delay = rng.randrange(processes), rng.uniform(0, seconds)
        if hit.total() < kills:
            what = run.kill(delay, victim)
        else:
            what, _ = None, run.finish()
        resumed = [int(n) for n in re.findall(r"resumed after update (\d+)", run.said())]
        if resumed and resumed != [before]:
            wrong.append(f"{workdir.name}: went on after update {resumed}, the newest complete one was {before}")
        interrupted = what is not None
        if what is not None:
            hit[what] += 1
            before, made = newest(workdir), max([line["step"] for line in steps(workdir)], default=0)
            lost = max(lost, made - before)
            print(f"killed after {delay:.2f} s: {what}; {made} updates made, {before} saved", flush=True)
            continue
        if before and not resumed:
            wrong.append(f"{workdir.name}: began anew, {before} updates were saved")
        wrong += [f"{workdir.name}: {one}" for one in differences(results(workdir), expected)]
        shutil.rmtree(workdir)
        number, before = number + 1, 0
    print(*wrong[:20], sep="\n" if wrong else "", end="\n" if wrong else "")
    shown = ", ".join(f"{hit[name]} {name}" for name in watched_training.PHASES)
    end = f"{len(wrong)} differences" if wrong else "nothing lost"
    of = f" in {processes} processes" if processes > 1 else ""
    return (
        f"soak: {hit.total()} kills of a training{of} ({shown}) in {number} runs to the end, at most {lost} updates"
        f" made anew: {end}",
        not wrong,
    )


def points(top: pathlib.Path, flags: list[str], at: list[str], processes: int, number: int) -> tuple[str, bool]:
    """A signal at chosen points, SIGSTOP as a pause: (what happened, in a line; whether each run that was asked to end
    did so with 75, saved, and all went on to the same end)."""
    Run(flags, top / "whole", processes).finish()  # compiles
    expected, wrong, longest = results(top / "whole"), [], 0.0
    for i, name in enumerate(at):
        workdir = top / f"point-{i}"
        if name == "load":  # there must be something to load
            run = Run(flags, workdir, processes)
            run.reach(SAVED)
            run.end(signal.SIGKILL)
        before = newest(workdir)
        run = Run(flags, workdir, processes)
        run.reach(name)
        if number == signal.SIGSTOP:
            run.pause(processes - 1, SLOW)
            run.finish()
        else:
            code, seconds = run.end(number)
            saved, made = newest(workdir), max([line["step"] for line in steps(workdir)], default=0)
            due = before if name == "load" else made
            said = f"{name}: {code} after {seconds:.2f} s; {made} updates made, {saved} saved"
            print(said, flush=True)
            wrong += [said] if number == signal.SIGTERM and (code != 75 or saved != due) else []
            Run(flags, workdir, processes).finish()
            longest = max(longest, seconds)
        wrong += [f"{name}: {one}" for one in differences(results(workdir), expected)]
    print(*wrong[:20], sep="\n" if wrong else "", end="\n" if wrong else "")
    end = f"{len(wrong)} differences" if wrong else "nothing lost"
    name = signal.Signals(number).name
    return f"soak: {name} at {len(at)} points of a training, {longest:.1f} s to the end at most: {end}", not wrong


def main() -> int:
    """Run what the arguments ask for."""
    parser = flags_lib.parser("tests.soak.training", __doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1, help="of this machine, which train together")
    parser.add_argument("--at", help=f"points, of {', '.join(watched_training.PHASES)}; a signal there, and no kills")
    signals = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL, "STOP": signal.SIGSTOP}
    parser.add_argument("--signal", default="TERM", choices=signals, help=f"at these points; STOP: for {SLOW:g} s")
    parser.add_argument("--bucket", action="store_true", help="folders cannot be renamed")
    parser.add_argument("--keep", help="an empty folder for all files, kept; default: a temporary one")
    parser.add_argument("flags", nargs="*", help="of a training of your own, behind --; without --workdir")
    given = parser.parse_args()
    if given.bucket:
        os.environ[watched_training.BUCKET] = "1"
    top = pathlib.Path(given.keep or tempfile.mkdtemp(prefix="vlguard_jax-soak-")).absolute()
    top.mkdir(exist_ok=True)
    flags = given.flags or material(top)
    if given.at:
        line, good = points(top, flags, given.at.split(","), given.processes, signals[given.signal])
    else:
        line, good = campaign(top, flags, given.kills, given.processes, given.seed)
    if not given.keep:
        shutil.rmtree(top)
    print(line)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
