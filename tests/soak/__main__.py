"""Kills an evaluation from outside, `kill -9` at random moments by the clock, and compares what its resumed runs leave.

  VLGUARD_GOLDEN=DIR VLGUARD_METADATA=DIR python -m tests.soak --kills 20
  ... --compute bf16 --limit 40 --seed 7      # in bf16, 40 questions of a subset, other moments

A recorded tiny checkpoint is asked VLGuard's test set with drawn pictures. The same command is started again after each
kill, until it ends: then its result files, sorted by key, must be an uninterrupted run's apart from time and run id.
All runs share compiled programs, so that few kills are spent on the compiler.
The last line says what the kills hit; exit code 0 only if nothing was lost, changed or answered twice.
"""

from __future__ import annotations

from collections import Counter
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from tests import source
from tests.soak import flags as flags_lib
from tests.soak import watched

FREE = ("time", "run_id", "versions")  # of a result line: may differ
FILES = ("generations.jsonl", "verdicts.jsonl")


def material(top: pathlib.Path, golden: pathlib.Path, metadata: pathlib.Path) -> list[str]:
    """The flags that name the checkpoint and the test set; makes its pictures in `top`."""
    command = [sys.executable, "-m", "vlguard_jax.prepare", "vlguard", f"--metadata={metadata}", "--stand_in_images"]
    subprocess.run([*command, f"--out={top / 'vlguard'}"], cwd=source.ROOT, check=True, capture_output=True)
    (tower,) = (golden / "vision_tower").iterdir()
    model = [f"--config.model.path={golden / 'liuhaotian-gqa'}", f"--config.model.vision_tower={tower}"]
    preset = f"--config={source.ROOT / 'configs' / 'eval' / 'vlguard.py'}:llava"
    return [preset, *model, f"--config.benchmark.path={top / 'vlguard'}"]


def evaluate(flags: list[str], workdir: pathlib.Path, seconds: float | None = None) -> str | None:
    """Run the command, and kill it after so many seconds; what was hit, or None where it had ended before.

    Raises:
      RuntimeError: it ended by itself with another exit code than 0.
    """
    phase = workdir.with_suffix(".phase")
    phase.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.soak.watched", str(phase), *flags, f"--workdir={workdir}"]
    programs = {
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **programs}  # one device
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(
            command, cwd=source.ROOT, env=os.environ | own, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            code = running.wait(source.PATIENCE if seconds is None else seconds)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            return watched.read(phase)
        if code:
            said.seek(0)
            raise RuntimeError(f"exit code {code}: {said.read().decode(errors='replace')[-4000:]}")
    return None


def results(workdir: pathlib.Path) -> dict[str, Any]:
    """All that a run leaves, by file: lines sorted by key without what may differ, other files as they are."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in workdir.iterdir() if path.is_file()}
    for name in FILES:
        lines = [json.loads(line) for line in found[name].splitlines()]
        kept = [{k: v for k, v in line.items() if k not in FREE} for line in lines]
        found[name] = sorted(kept, key=lambda line: (line["key"], line.get("judge", "")))
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """One line for each thing that is not as it should be."""
    said = [f"{name}: in one folder only" for name in sorted(found.keys() ^ expected.keys())]
    for name in sorted(found.keys() & expected.keys()):
        ours, theirs = found[name], expected[name]
        if name in FILES and len(ours) == len(theirs):
            said += [f"{name}: {a} is not {b}" for a, b in zip(ours, theirs, strict=True) if a != b]
        elif ours != theirs:
            said.append(f"{name}: {len(ours)} lines or bytes, not the same {len(theirs)}")
    return said


def campaign(top: pathlib.Path, flags: list[str], kills: int, seed: int) -> tuple[str, bool]:
    """(what happened, in a line; whether nothing was lost)."""
    evaluate(flags, top / "whole")  # compiles
    began = time.monotonic()
    evaluate(flags, top / "again")
    seconds, expected, rng = time.monotonic() - began, results(top / "whole"), random.Random(seed)
    print(f"uninterrupted: {len(expected[FILES[0]]):,} answers in {seconds:.1f} s", flush=True)
    hit: Counter[str] = Counter()
    wrong = [f"again: {one}" for one in differences(results(top / "again"), expected)]
    number, interrupted = 0, False
    while hit.total() < kills or interrupted:
        workdir = top / f"run-{number}"
        delay = rng.uniform(0, seconds) if hit.total() < kills else None
        what = evaluate(flags, workdir, delay)
        interrupted = what is not None
        if what is not None:
            hit[what] += 1
            kept = (workdir / FILES[0]).read_bytes().count(b"\n") if (workdir / FILES[0]).exists() else 0
            print(f"killed after {delay:.2f} s: {what}, {kept:,} answers kept", flush=True)
            continue
        wrong += [f"{workdir.name}: {one}" for one in differences(results(workdir), expected)]
        number += 1
    print(*wrong[:20], sep="\n" if wrong else "", end="\n" if wrong else "")
    shown = ", ".join(f"{hit[name]} {name}" for name in watched.PHASES)
    end = f"{len(wrong)} differences" if wrong else "nothing lost"
    return f"soak: {hit.total()} kills ({shown}) in {number} runs to the end: {end}", not wrong


def main() -> int:
    """Run what the arguments ask for."""
    parser = flags_lib.parser("tests.soak", __doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--limit", type=int, default=0, help="questions of a subset; 0: all")
    parser.add_argument("--compute", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--keep", help="an empty folder for all files, kept; default: a temporary one")
    given = parser.parse_args()
    folders = [os.environ.get(name, "") for name in ("VLGUARD_GOLDEN", "VLGUARD_METADATA")]
    if not all(folders):
        parser.error("VLGUARD_GOLDEN and VLGUARD_METADATA name the folders of the recorded results and of VLGuard")
    top = pathlib.Path(given.keep or tempfile.mkdtemp(prefix="vlguard_jax-soak-")).absolute()
    flags = material(top, *(pathlib.Path(folder).absolute() for folder in folders))
    flags += [f"--config.precision.compute={given.compute}", f"--config.benchmark.limit={given.limit}"]
    line, good = campaign(top, flags, given.kills, given.seed)
    if not given.keep:
        shutil.rmtree(top)
    print(line)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
