"""Kills a conversion from outside, `kill -9` at random moments of its writing, and compares what resumed runs leave.

  python -m tests.soak.conversion --kills 20
  python -m tests.soak.conversion --kills 20 --src FOLDER --keep DIR     # of a model of your own, on a disk of your own

A random model of 0.7 GB in llava-hf's layout is converted to Orbax, that to LLaVA's layout, that back to llava-hf, each
killed up to three times. The same command is started again after each kill, until it ends: then its folder has the
bytes of an uninterrupted conversion's (Orbax: the arrays), and nothing else lies beside it; so has a folder that a
kill leaves under the target's name.
The last line says what the kills hit; exit code 0 only if nothing was lost or changed.
"""

from __future__ import annotations

from collections import Counter
import hashlib
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from tests import source
from tests.soak import flags as flags_lib

LAYOUTS = ("orbax", "llava", "hf")
SHARD_BYTES = 32 * 10**6  # so that a folder has many files
MOST = 3  # kills of one conversion
WIDTH, DEPTH = 1024, 12  # of the drawn model's text
# convert, with files of that size.
COMMAND = (
    "import runpy, sys\nfrom vlguard_jax.checkpoints import safetensors_files as files\n"
    "shards, size = files.shards, int(sys.argv.pop(1))\nfiles.shards = lambda entries, _: shards(entries, size)\n"
    "runpy.run_module('vlguard_jax.convert', run_name='__main__', alter_sys=True)"
)


def material(folder: pathlib.Path) -> None:
    """Write a random model in llava-hf's layout."""
    import dataclasses

    import numpy as np

    from tests.checkpoints import made
    from vlguard_jax import trees
    from vlguard_jax.checkpoints import layouts
    from vlguard_jax.checkpoints import save

    small = made.model()
    sizes = {"width": WIDTH, "mlp_width": 4 * WIDTH, "num_layers": DEPTH, "num_heads": WIDTH // 64, "head_width": 64}
    text = dataclasses.replace(small.config.text, **sizes)  # type: ignore[arg-type]
    config = dataclasses.replace(small.config, text=text)
    rng = np.random.default_rng(0)
    drawn = {path: rng.random(shape, np.float32) for path, shape in layouts.tree_shapes(config).items()}
    save.save_hf(dataclasses.replace(small, config=config, params=trees.unflatten(drawn)), folder)


class Conversion:
    """One start of the command, and what it has written so far."""

    def __init__(self, src: pathlib.Path, dst: pathlib.Path, to: str):
        self.dst, self._output = dst, tempfile.TemporaryFile()  # noqa: SIM115 -- as long as the object
        flags = [f"--src={src}", f"--dst={dst}", f"--to={to}"]
        self._running = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(SHARD_BYTES), *flags],
            cwd=source.ROOT,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def partial(self) -> pathlib.Path | None:
        """The hidden folder that it writes to."""
        return next(iter(self.dst.parent.glob(f".{self.dst.name}.*.partial")), None)

    def begun(self) -> float:
        """Wait until it writes, or has ended; the time."""
        while self._running.poll() is None and self.partial() is None:
            time.sleep(0.001)
        return time.monotonic()

    def ended(self, seconds: float) -> bool:
        """Wait for its end, and kill it after so many seconds.

        Raises:
          RuntimeError: it ended by itself with another exit code than 0.
        """
        try:
            code = self._running.wait(seconds)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()
            return False
        if code:
            self._output.seek(0)
            raise RuntimeError(f"exit code {code}: {self._output.read().decode(errors='replace')[-4000:]}")
        return True

    def hit(self) -> str:
        """What a kill left."""
        folder = self.partial()
        if folder is None:
            return "end" if self.dst.exists() else "start"
        journal = folder / ".journal"
        parts = len(journal.read_bytes().splitlines()) if journal.exists() else 0
        return "first part" if parts == 0 else "later part"


def contents(folder: pathlib.Path) -> dict[str, str]:
    """The hash of every file below it; of an Orbax folder's, whose files have names by chance, that of every array."""
    if (folder / "arrays").exists():
        from vlguard_jax import trees
        from vlguard_jax.checkpoints import load

        arrays = trees.flatten(load.opened(folder).params)
        return {path: hashlib.sha256(array[...].tobytes()).hexdigest() for path, array in arrays.items()}
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def campaign(top: pathlib.Path, src: pathlib.Path, kills: int, seed: int) -> tuple[str, bool]:
    """(what happened, in a line; whether nothing was lost)."""
    rng, hit, wrong, number = random.Random(seed), Counter[str](), [], 0
    sources, seconds, expected = {}, {}, {}
    (top / "whole").mkdir()
    for to in LAYOUTS:
        whole = Conversion(src, top / "whole" / to, to)  # of the same name: the model card has it
        began = whole.begun()
        whole.ended(source.PATIENCE)
        sources[to], seconds[to], expected[to] = src, time.monotonic() - began, contents(whole.dst)
        print(f"uninterrupted, to {to}: {len(expected[to])} files, writing for {seconds[to]:.1f} s", flush=True)
        src = whole.dst
    while hit.total() < kills:
        to = LAYOUTS[number % len(LAYOUTS)]
        dst = top / f"run-{number}" / to
        dst.parent.mkdir()
        stop = min(kills, hit.total() + MOST)
        while True:
            one = Conversion(sources[to], dst, to)
            one.begun()
            if one.ended(rng.uniform(0, seconds[to]) if hit.total() < stop else source.PATIENCE):
                break
            hit[one.hit()] += 1
            print(f"to {to}, killed: {one.hit()}", flush=True)
            if dst.exists():
                break  # it must be whole: the same command would say that it is there
        differing = {name for name, _ in contents(dst).items() ^ expected[to].items()}
        wrong += [f"{dst.parent.name}: {name} is not that of an uninterrupted conversion" for name in differing]
        wrong += [f"{dst.parent.name}: {path.name} was left" for path in dst.parent.iterdir() if path != dst]
        shutil.rmtree(dst.parent)
        number += 1
    print(*wrong[:20], sep="\n" if wrong else "", end="\n" if wrong else "")
    shown = ", ".join(f"{count} {name}" for name, count in sorted(hit.items()))
    return f"soak: {hit.total()} kills ({shown}) in {number} conversions: {len(wrong)} differences", not wrong


def main() -> int:
    """Run what the arguments ask for."""
    parser = flags_lib.parser("tests.soak.conversion", __doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--src", help="a model's folder in any layout; default: a drawn one")
    parser.add_argument("--keep", help="an empty folder for all files, kept; default: a temporary one")
    given = parser.parse_args()
    top = pathlib.Path(given.keep or tempfile.mkdtemp(prefix="vlguard_jax-soak-")).absolute()
    if given.src is None:
        material(top / "start")
    line, good = campaign(top, pathlib.Path(given.src or top / "start").absolute(), given.kills, given.seed)
    if not given.keep:
        shutil.rmtree(top)
    print(line)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
