"""Trains on a small disk that is full at random moments, and compares what the run leaves once there is room again.

  python -m tests.soak.full_disk --trials 20              # as root: a disk in memory is mounted
  python -m tests.soak.full_disk --trials 20 --disk DIR   # an empty folder on a small disk of your own

In each trial a file leaves a random number of bytes to a training (that of tests.soak.training). It has to end by
itself, with 0 or with 2 and one line that says what is full, and the checkpoint it names as saved must be there. Then
the file is deleted: the same command has to go on from the newest checkpoint and to leave an uninterrupted run's bytes.
"""

from __future__ import annotations

from collections import Counter
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

from tests import source
from tests.soak import flags as flags_lib
from tests.soak import training

SIZE = 64 * 10**6  # bytes of the disk that is mounted


def trial(flags: list[str], workdir: pathlib.Path, room: int) -> tuple[str, list[str]]:
    """One training with so many bytes of room and the one after it: (how the first ended, what was wrong)."""
    filler = workdir.parent / "filler"
    disk = os.statvfs(workdir.parent)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(disk.f_bavail * disk.f_frsize - room, 1))
    run = training.Run(flags, workdir, 1)
    code, said = run.running[0].wait(source.PATIENCE), run.said()
    last = said.strip().splitlines()[-1:]
    wrong = []
    if code not in (0, 2) or (code == 2 and not re.match(r"error: .*(no space left|make room)", " ".join(last))):
        wrong.append(f"ended with {code}: {said[-600:]}")
    if "Traceback" in said:
        wrong.append(f"a stack trace: {said[-2000:]}")
    saved = training.newest(workdir)
    filler.unlink()
    run = training.Run(flags, workdir, 1)
    run.finish()
    resumed = [int(n) for n in re.findall(r"resumed after update (\d+)", run.said())]
    if code == 2 and resumed != ([saved] if saved else []):
        wrong.append(f"went on after update {resumed}, the newest was {saved}")
    full = "a save left out" if "no space left" in said.lower() else "enough room"
    return f"{full}, {code}" if code == 0 else f"ended with 2 after {saved} saved updates", wrong


def campaign(top: pathlib.Path, disk: pathlib.Path, flags: list[str], trials: int, seed: int) -> tuple[str, bool]:
    """(what happened, in a line; whether nothing was lost)."""
    training.Run(flags, top / "whole", 1).finish()
    expected = training.results(top / "whole")
    size = sum(path.stat().st_size for path in (top / "whole").rglob("*") if path.is_file())
    rng, wrong, ends = random.Random(seed), [], Counter[str]()
    for i in range(trials):
        workdir, room = disk / f"run-{i}", rng.randrange(size * 5 // 4)
        end, faults = trial(flags, workdir, room)
        faults += training.differences(training.results(workdir), expected)
        print(f"{room:,} bytes of room: {end}", *faults, sep="\n  ", flush=True)
        wrong += faults
        ends[re.sub(r" after.*", "", end)] += 1
        shutil.rmtree(workdir)
    shown = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    return f"soak: {trials} trainings on a full disk ({shown}): {len(wrong)} differences", not wrong


def main() -> int:
    """Run what the arguments ask for."""
    parser = flags_lib.parser("tests.soak.full_disk", __doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--disk", help="an empty folder on a small disk; default: one in memory")
    given = parser.parse_args()
    top = pathlib.Path(tempfile.mkdtemp(prefix="vlguard_jax-soak-"))
    disk = pathlib.Path(given.disk or top / "disk").absolute()
    disk.mkdir(exist_ok=True)
    if not given.disk:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
        if subprocess.run(mount, check=False).returncode:
            parser.error("no disk could be mounted: run it as root, or name a folder on a small disk with --disk")
    try:
        line, good = campaign(top, disk, training.material(top), given.trials, given.seed)
    finally:
        if not given.disk:
            subprocess.run(["umount", str(disk)], check=True)
    shutil.rmtree(top)
    print(line)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
