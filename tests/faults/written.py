"""Damage to folders that this program has written, in every layout: one bit, one byte or the length of one file. Each
has a manifest.json, so nothing may be loaded."""

from __future__ import annotations

import atexit
import functools
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

from tests.faults import sandbox
from vlguard_jax.checkpoints import load

LAYOUTS = ("llava", "hf", "orbax", "peft")


def write(top: pathlib.Path) -> None:
    """A small model in every layout, and adapters on the first."""
    from tests.checkpoints import made
    from vlguard_jax.checkpoints import save
    from vlguard_jax.checkpoints import save_adapters

    save.save_llava(made.model(), top / "llava", shard_bytes=4000)
    save.save_hf(made.model(), top / "hf", shard_bytes=4000)
    save.save_orbax(made.model(), top / "orbax")
    base = made.on(str(top / "llava"))
    save_adapters.save_peft(made.model(made.LORA, base=base), top / "peft")


@functools.cache
def folders() -> pathlib.Path:
    """What `write` writes, in a process of its own: children of one that has begun JAX could not use it."""
    top = tempfile.mkdtemp(prefix="vlguard_jax-written-")
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "tests.faults.written", top], check=True)
    return pathlib.Path(top)


def damage(rng: random.Random, folder: pathlib.Path) -> str:
    """Change one file of a folder; what was done, in words."""
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data)) if data else 0
    kind = rng.choice(["bit", "byte", "cut", "empty", "longer", "gone"] if data else ["longer", "gone"])
    if kind == "bit":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        data[at] ^= rng.randrange(1, 256)
    elif kind == "cut":
        del data[at:]
    elif kind == "empty":
        data.clear()
    elif kind == "longer":
        data += bytes(rng.randrange(1, 20))
    path.write_bytes(data)
    if kind == "gone":
        path.unlink()
    return f"{folder.name}: {kind} at {at} of {path.relative_to(folder)}"


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One folder and its trial. Without its manifest a folder may lose just that."""
    layout = rng.choice(LAYOUTS)
    copy = folder / layout
    shutil.copytree(folders() / layout, copy)
    if layout != "orbax" and rng.random() < 0.1:
        return sandbox.Trial(f"{layout}: sound", lambda: bool(load.load(copy).weights_sha256), True, must_read=True)
    what = damage(rng, copy)
    if not (copy / "manifest.json").exists():
        return sandbox.Trial(what, lambda: None, sandbox.Anything)
    return sandbox.Trial(what, lambda: load.load(copy).weights_sha256)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
