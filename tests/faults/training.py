"""Hostile working directories to resume in: damaged, forged, replaced by links and pipes, or of another run.

Right is a refusal, or the values of the newest whole step. The states are written once, by a process of its own: JAX is
started in the children alone, which could not go on with its threads.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
import contextlib
import functools
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import jax
import numpy as np

from tests import source
from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax import workdir
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import store as store_lib
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import resume
from vlguard_jax.training import setup
from vlguard_jax.training import step as step_lib

SETTINGS = config.TrainConfig(seed=7)
BASE = "b" * 64
STEPS = (3, 5)
RECORD = "meta/metadata"
# Folders that tests.faults.training writes: what is resumed, and what others could put in its place.
RUNS: dict[str, dict[str, Any]] = {
    "run": {},
    "another": {"value": 2.0, "base": "c" * 64, "seed": 8},
    "not finite": {"value": float("nan")},
    "larger": {"shape": (4, 4)},
    "smaller": {"shape": (1, 2)},
    "other types": {"dtype": "float16"},
}
ODD_NAMES = (
    "05",
    "+6",
    "\u0667",
    "1_0",
    "9" * 11,
    "-1",
    "9",
    "6.orbax-checkpoint-tmp",
    "6.orbax-checkpoint-tmp-1",
    "notes",
    "\u001b[2J",
)


def state(step: int, value: float = 1.0, shape: tuple[int, ...] = (2, 3), dtype: str = "float32") -> dict[str, Any]:
    """What is saved, of the form of a training's state: small, and other values in every step."""
    weights = np.full(shape, value + step, dtype)
    tree = {
        "params": {"projector": {"a": weights, "b": -weights}},
        "opt_state": {"count": np.int32(step), "mu": weights / 4},
    }
    return {"step": np.int32(step), **tree}


def write(top: pathlib.Path) -> None:
    """All of RUNS."""
    for name, changes in RUNS.items():
        of_state = {key: changes[key] for key in ("value", "shape", "dtype") if key in changes}
        settings = config.TrainConfig(seed=changes.get("seed", SETTINGS.seed))
        meta = {"config": workdir.plain(settings), "config_hash": workdir.config_hash(settings)}
        meta |= {"base_sha256": changes.get("base", BASE), "stand_in": False}
        with contextlib.closing(store_lib.Store(top / name / "checkpoints", keep=2)) as store:
            for step in STEPS:
                store.save(step, state(step, **of_state), meta)
                store.wait()
        workdir.claim(top / name, settings)


@functools.cache
def _written() -> pathlib.Path:
    top = pathlib.Path(tempfile.mkdtemp(prefix="vlguard_jax-faults-training-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "tests.faults.training", str(top)], cwd=source.ROOT, check=True)
    return top


def _plain(tree: dict[str, Any]) -> dict[str, Any]:
    return {path: np.asarray(value).tolist() for path, value in trees.flatten(tree).items()}


def _partly(kind: type, **values: Any) -> Any:
    """An instance of `kind` that has nothing but these attributes."""
    return object.__new__(type(kind.__name__, (kind,), values))


def _went_on(run: pathlib.Path) -> dict[str, Any]:
    """`_resumed`; that the newest step was set aside, whole, for the older one is as good as a refusal."""
    found = _resumed(run)
    if found == OLDER and list((run / "checkpoints").glob("5.broken-*")):
        raise errors.UserError("set aside")
    return found


def _said(_: str) -> None:
    """Which steps were set aside: the values tell."""


def _resumed(run: pathlib.Path) -> dict[str, Any]:
    """The values that a training goes on from, read as vlguard_jax/training/resume.py does."""
    workdir.check(run, SETTINGS, free=resume.FREE_SETTINGS)
    fresh = step_lib.TrainState(**jax.tree.map(jax.numpy.asarray, state(0)))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    program = _partly(program_lib.Program, state=fresh, state_shardings=jax.tree.map(lambda _: place, fresh))
    start = _partly(checkpoint.Checkpoint, weights_sha256=BASE, extras={})
    with contextlib.closing(resume.open_store(SETTINGS, run, lambda: None)) as store:
        found = resume.restore(SETTINGS, program, store, start, "", run, _said)
    return _plain(setup.to_tree(found))


# what was done to a run's folder, and what is right then
Change = Callable[[random.Random, pathlib.Path], tuple[str, object]]
NEWEST, OLDER, FRESH = (_plain(state(step)) for step in (5, 3, 0))


def _any_file(rng: random.Random, run: pathlib.Path) -> pathlib.Path:
    return rng.choice(sorted(path for path in (run / "checkpoints/5").rglob("*") if path.is_file()))


def _document(rng: random.Random, run: pathlib.Path) -> tuple[str, object]:
    names = [f"checkpoints/5/{RECORD}"] * 3 + [
        "checkpoints/5/_CHECKPOINT_METADATA",
        "checkpoints/5/state/_METADATA",
        workdir.CONFIG_FILE,
    ]
    path = run / rng.choice(names)
    what, data = documents.change(rng, json.loads(path.read_bytes()))
    path.write_bytes(data)
    return f"{path.name} with {what}", NEWEST


def _damage(rng: random.Random, run: pathlib.Path) -> tuple[str, object]:
    path = _any_file(rng, run)
    data, kind = bytearray(path.read_bytes()), rng.choice(["flipped", "cut", "empty", "other", "missing"])
    if kind == "flipped":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[rng.randrange(len(data)) :]
    elif kind != "missing":
        data = bytearray() if kind == "empty" else bytearray(rng.randbytes(200))
    path.unlink() if kind == "missing" else path.write_bytes(data)
    return f"file {kind} at {path.name[:12]}", NEWEST


def _replaced(rng: random.Random, run: pathlib.Path) -> tuple[str, object]:
    """Something else in the place of a file or folder."""
    places = [run / "checkpoints", run / "checkpoints/5", run / workdir.CONFIG_FILE, _any_file(rng, run)]
    places += [path for path in (run / "checkpoints/5").rglob("*") if path.is_dir()]
    path, kind = (
        rng.choice(places),
        rng.choice(["link", "link outside", "link to itself", "pipe", "file", "folder", "missing"]),
    )
    aside = run / "aside"
    path.rename(aside)
    if kind.startswith("link"):
        path.symlink_to({"link": aside, "link outside": run.parent.parent / "outside"}.get(kind, path))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "file":
        path.write_text("{}")
    elif kind == "folder":
        path.mkdir()
    of_the_run = path == run / workdir.CONFIG_FILE
    gone, old = path.name == "checkpoints" and kind in ("missing", "folder"), path.name == "5" and kind == "missing"
    right: object = FRESH if gone else OLDER if old else NEWEST
    return f"{kind} in place of {path.name[:12] if not of_the_run else 'config.json'}", right


def _forged(rng: random.Random, run: pathlib.Path) -> tuple[str, object]:
    """A record that is not the state's."""
    path = run / "checkpoints/5" / RECORD
    record = json.loads(path.read_bytes())
    arrays, kind = (
        record["arrays"],
        rng.choice(["version", "run", "lost", "more", "shape", "dtype", "checksum", "step"]),
    )
    name = rng.choice(list(arrays))
    if kind == "version":
        record[rng.choice(["format_version", "layout_version"])] = rng.choice([0, 1, 99, "1", None, [1], -1, 1.5])
    elif kind == "run":
        key = rng.choice(["base_sha256", "config", "kind"])
        record[key] = {"base_sha256": "c" * 64, "config": record["config"] | {"seed": 8}, "kind": "model"}[key]
    elif kind == "lost":
        del arrays[name]
    elif kind == "more":
        arrays[rng.choice(["x", "params", "params.projector.c", "__class__", ""])] = arrays[name]
    elif kind == "step":
        record["step"] = rng.choice([3, 6, 5.5, "5", True, None, -5])
    else:
        forged = {"shape": [[7], [2, 2], [-2, -3], [2, 3, 1], [1 << 62]], "dtype": ["int64", "float64", "V8", "O", ""]}
        arrays[name][kind] = rng.choice(forged.get(kind, ["00000000", "", "g" * 8]))
    path.write_text(json.dumps(record))
    return f"record: {kind}", sandbox.Nothing


def _of_another(rng: random.Random, run: pathlib.Path) -> tuple[str, object]:
    """Another run's step, or the arrays of another under this run's record."""
    name = rng.choice([name for name in RUNS if name != "run"])
    part = rng.choice(["checkpoints", "checkpoints/5", "checkpoints/5/state", f"checkpoints/5/{RECORD}"])
    other, own = _written() / name / part, run / part
    if own.is_dir():
        shutil.rmtree(own)
        shutil.copytree(other, own)
    else:
        shutil.copy(other, own)
    # its half floats hold the very values that the record's sums are of
    same = name == "other types" and part.endswith("state")
    return f"{part} of a run that is {name}", NEWEST if same else sandbox.Nothing


def _older(rng: random.Random, run: pathlib.Path) -> tuple[str, object]:
    """The state of one step under the record of another."""
    part = rng.choice(["state", "meta"])
    shutil.rmtree(run / "checkpoints/5" / part)
    shutil.copytree(run / "checkpoints/3" / part, run / "checkpoints/5" / part)
    return f"{part} of an older step", sandbox.Nothing


def _beside(rng: random.Random, run: pathlib.Path) -> tuple[str, object]:
    """Something beside the steps that is none, or half of one."""
    name, kind = rng.choice(ODD_NAMES), rng.choice(["step", "empty", "file", "pipe", "link"])
    path = run / "checkpoints" / name
    if kind == "step":
        shutil.copytree(run / "checkpoints/5", path)
    elif kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("x")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(run / "checkpoints/5")
    return f"{kind} named {name!a} beside the steps", NEWEST


CHANGES: tuple[Change, ...] = (
    _document,
    _document,
    _damage,
    _damage,
    _replaced,
    _replaced,
    _forged,
    _of_another,
    _older,
    _beside,
)


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A run with one thing wrong, resumed."""
    run = folder / "run"
    shutil.copytree(_written() / "run", run)
    if rng.random() < 0.05:
        return sandbox.Trial("sound", lambda: _went_on(run), NEWEST, must_read=True)
    what, right = rng.choice(CHANGES)(rng, run)
    return sandbox.Trial(what, lambda: _went_on(run), right)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
