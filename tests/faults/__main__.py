"""Hostile input for every reader, counted by outcome.

  python -m tests.faults                       # N trials a reader (default 100)
  python -m tests.faults --n 5000 --seed 7 --readers torch,pictures
  python -m tests.faults --trial torch:7:123   # one again, with its message

Exit code 0 only if every trial ended in a refusal of one line or in the right value.
"""

from __future__ import annotations

import argparse
from collections import Counter
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a forked child has none of the parent's threads
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # started in children alone

from tests.faults import readers
from tests.faults import sandbox

SHOWN = 3  # bad outcomes in full, of each kind


def trial(reader: readers.Reader, name: str, seed: int, number: int, top: pathlib.Path) -> tuple[str, sandbox.Outcome]:
    """Make the input of one trial and run it; (what it was, how it ended)."""
    around = top / f"{name}-{number}"
    folder = around / "in"
    folder.mkdir(parents=True)
    readers.plant(around)
    made = reader(random.Random(f"{name} {seed} {number}"), folder)
    outcome = sandbox.run(made, folder)
    shutil.rmtree(around, ignore_errors=True)
    return made.what, outcome


def campaign(names: list[str], count: int, seed: int, top: pathlib.Path) -> dict[str, Counter[str]]:
    """All trials; bad ones are printed with the command that repeats them."""
    counts: dict[str, Counter[str]] = {}
    for name in names:
        counts[name] = Counter()
        bad: Counter[tuple[str, str]] = Counter()
        for number in range(count):
            what, outcome = trial(readers.READERS[name], name, seed, number, top)
            counts[name][outcome.word] += 1
            if outcome.word not in sandbox.GOOD:
                kind = what.split(" at ")[0]
                bad[kind, outcome.word] += 1
                if bad[kind, outcome.word] <= SHOWN:
                    print(
                        f"{outcome.word}: {what}: {outcome.detail[:300]}\n    python -m tests.faults --trial"
                        f" {name}:{seed}:{number}"
                    )
    return counts


def table(counts: dict[str, Counter[str]]) -> str:
    """A line a reader, a column an outcome."""
    words = [w for w in sandbox.OUTCOMES if w in sandbox.GOOD or any(c[w] for c in counts.values())]
    lines = [["reader", "trials", *words]]
    lines += [[name, str(c.total()), *(str(c[w]) for w in words)] for name, c in counts.items()]
    lines += [["all", *(str(sum(int(line[i]) for line in lines[1:])) for i in range(1, len(words) + 2))]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(_cell(*pair) for pair in enumerate(zip(line, widths, strict=True))) for line in lines)


def _cell(column: int, content: tuple[str, int]) -> str:
    text, width = content
    return text.rjust(width) if column else text.ljust(width)


def main() -> int:
    """Run what the arguments ask for."""
    as_it_stands = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, formatter_class=as_it_stands)
    parser.add_argument("--n", type=int, default=100, help="trials for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", default="", help=f"comma-separated, of {', '.join(readers.READERS)}; default all")
    parser.add_argument("--trial", default="", help="READER:SEED:NUMBER: this one alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlguard_jax-faults-") as top:
        if given.trial:
            name, seed, number = given.trial.rsplit(":", 2)
            what, outcome = trial(readers.READERS[name], name, int(seed), int(number), pathlib.Path(top))
            print(f"{what}: {outcome.word}: {outcome.detail}")
            return outcome.word not in sandbox.GOOD
        names = given.readers.split(",") if given.readers else list(readers.READERS)
        started = time.monotonic()
        counts = campaign(names, given.n, given.seed, pathlib.Path(top))
    print(table(counts))
    good = sum(c[w] for c in counts.values() for w in sandbox.GOOD)
    failed = sum(c.total() for c in counts.values()) - good
    print(f"seed {given.seed}, {time.monotonic() - started:.0f} s\n{good} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
