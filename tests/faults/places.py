"""Hostile places to write to: links, files, pipes, names and folders of others where a model, a folder or a run is to
go.

Right is a refusal, or the new folder whole; and all that lay there before is there still, byte for byte, but a
checkpoint that --overwrite was to replace.
"""

from __future__ import annotations

from collections.abc import Callable
import ctypes
import dataclasses
import errno
import json
import os
import pathlib
import random

from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax import machine
from vlguard_jax import workdir
from vlguard_jax.checkpoints import place

SETTINGS = config.TrainConfig(seed=7)
NEW = {"config.json": '{"new": 1}', "model.safetensors": "new"}
OURS = (workdir.CONFIG_FILE, workdir.LOCK_FILE)  # files of a working directory that a run may write anew
RIGHT = {"lost": [], "stray": [], "whole": True}
NAMES = (
    *(
        "new",
        "new/deep/er",
        "n" * 255,
        "n" * 256,
        "é" * 128,
        "\u001b[2J",
        "a\nb",
        "a\u2028b",
        "\u202etxt.exe",
        "half \udce9",
        "a\0b",
    ),
    *(
        " ",
        "~",
        "-rf",
        "*",
        "$(touch x)",
        ".hidden",
        "new.partial",
        "new/",
        "./new",
        "notes/../new",
        "link/../new",
        "d/" * 2050 + "d",
    ),
    *("models/source/new", "elsewhere/new", "link/new", "link/new/er"),
)
# for all
BLOCKED = ("notes/thesis.tex", "notes/thesis.tex/a", "pipe", "pipe/a", "loop/a", "loop", "dangling", "models/source")
TAKEN = (
    "dangling/a",
    "notes",
    "elsewhere",
    "link/",
    "link",
    "models",
    "people",
    "people/me",
    "out",
    "models/source/vision_tower",
)
AROUND = (".", "..", "./", "notes/..")  # hold what the reader is given: refused before anything is made beside it
FOREIGN = (
    "notes.txt",
    "vision_tower/thesis.tex",
    ".git/config",
    "runs/metrics.jsonl",
    "tokenizer.json/x",
    "a\nb",
    "weights.ckpt",
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where something is to be written. must: "be refused", "be written" or "" for either. goes: what is there may be
    replaced."""

    what: str
    path: str
    must: str = ""
    goes: bool = False
    write_protected: bool = False


def plant(folder: pathlib.Path) -> None:
    """What may not be lost, and ways to it."""
    texts = {
        "notes/thesis.tex": "years",
        "elsewhere/kept.txt": "kept",
        "people/me/letter": "dear",
        "models/source/tokenizer.model": "t",
    }
    texts |= {f"models/source/{name}": "old" for name in (*NEW, "vision_tower/config.json")}
    texts |= {f"{name}/old": "half" for name in (".new.partial", f".new.{'0' * 16}.partial", ".new.old")}
    for name, text in texts.items():
        _put(folder / name, text)
    for name, to in {"link": "elsewhere", "dangling": "nowhere", "loop": "loop", "out": "../outside"}.items():
        (folder / name).symlink_to(to)
    os.mkfifo(folder / "pipe")


def _put(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _named(rng: random.Random, folder: pathlib.Path) -> Place:
    name = rng.choice(NAMES)
    return Place(f"name {name[:20]!a}", name, "be written" if name in ("new", "new/deep/er", ".hidden") else "")


def _taken(rng: random.Random, folder: pathlib.Path) -> Place:
    name = rng.choice(BLOCKED + TAKEN)
    return Place(f"taken: {name}", name, "be refused")


def _around(rng: random.Random, folder: pathlib.Path) -> Place:
    name = rng.choice(AROUND)
    return Place(f"around: {name}", name, "be refused")


def _no_folder(rng: random.Random, folder: pathlib.Path) -> Place:
    """No file is a working directory; any folder of one's own may become one."""
    name = rng.choice(BLOCKED)
    return Place(f"taken: {name}", name, "be refused")


def _checkpoint(rng: random.Random, folder: pathlib.Path) -> Place:
    for name in rng.choice(
        [tuple(NEW), ("checkpoint.json", "arrays/manifest.ocdbt"), ("adapter_config.json", "adapter_model.bin")]
    ):
        _put(folder / "old" / name, "old")
    if rng.random() < 0.3:
        (folder / "old/model-2.safetensors").symlink_to("../elsewhere/kept.txt")
    return Place("checkpoint", "old", goes=True)


def _mixed(rng: random.Random, folder: pathlib.Path) -> Place:
    """A checkpoint with something of others in it, or what looks like one."""
    _put(folder / "old/config.json", "old")
    kind = rng.choice(["foreign", "folder as mark", "link as mark", "link to a folder", "no mark"])
    if kind == "foreign":
        _put(folder / "old" / rng.choice(FOREIGN), "somebody's")
    elif kind == "link to a folder":
        (folder / "old" / rng.choice(["vision_tower", "arrays", ".cache"])).symlink_to("../elsewhere")
    else:
        (folder / "old/config.json").unlink()
        _put(folder / "old/README.md", "about")
    if kind == "folder as mark":
        _put(folder / "old/config.json/kept", "somebody's")
    elif kind == "link as mark":
        (folder / "old/config.json").symlink_to("../nowhere")
    return Place(f"no checkpoint: {kind}", "old", "be refused")


def _empty(rng: random.Random, folder: pathlib.Path) -> Place:
    (folder / "old").mkdir()
    return Place("empty folder", "old", "be written")


def _protected(rng: random.Random, folder: pathlib.Path) -> Place:
    path = rng.choice(["elsewhere/new", "elsewhere/new/er", "link/new"])
    (folder / "elsewhere").chmod(0o555)
    return Place("write-protected", path, "be refused", write_protected=True)


def _run(rng: random.Random, folder: pathlib.Path) -> Place:
    """A working directory with a file where ours will be."""
    run, kind = (
        folder / "old",
        rng.choice(["own", "another's", "changed", "pipe", "folder", "loop", "dangling", "lock"]),
    )
    _put(run / "metrics.jsonl", "kept")
    at, must = run / workdir.CONFIG_FILE, "be refused"
    if kind in ("own", "lock"):
        workdir.claim(run, SETTINGS)
        at, must = run / workdir.LOCK_FILE, "be written" if kind == "own" else "be refused"
    elif kind == "another's":
        workdir.claim(run, dataclasses.replace(SETTINGS, seed=8))
    elif kind == "changed":
        _, data = documents.change(rng, workdir.plain(SETTINGS))
        at.write_bytes(data)
        must = ""
    if kind in ("pipe", "lock"):
        os.mkfifo(at)
    elif kind == "folder":
        _put(at / "kept", "somebody's")
    elif kind in ("loop", "dangling"):
        at.symlink_to(at.name if kind == "loop" else "../nowhere")
        must = ""
    return Place(f"run: {kind}", "old", must)


KINDS: dict[str, tuple[Callable[[random.Random, pathlib.Path], Place], ...]] = {
    "model": (_named, _taken, _around, _checkpoint, _mixed, _empty, _protected),
    "model over": (_named, _taken, _around, _checkpoint, _mixed, _mixed, _empty, _protected),
    "folder": (_named, _taken, _checkpoint, _empty, _protected),
    "run": (_named, _no_folder, _run, _run, _empty, _protected),
}


def _write_run(path: str) -> None:
    with workdir.hold(pathlib.Path(path)):
        workdir.check(pathlib.Path(path), SETTINGS)
        workdir.claim(pathlib.Path(path), SETTINGS)


def _write_folder(path: str, writer: str, fails: bool) -> None:
    """As vlguard_jax/checkpoints/save.py does, where it is a model's."""
    if writer != "folder":
        place.check_free(path, writer == "model over", ["models/source"])
    with folders.new_folder(pathlib.Path(path), replace=writer == "model over") as folder:
        for name, text in NEW.items():
            (folder / name).write_text(text)
        if fails:
            raise OSError(errno.ENOSPC, "x", str(folder))


def _drop_rights() -> None:
    """Root may write everywhere; from here on this process is held to the modes of files, as everybody is."""
    header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None, use_errno=True).capset(header, rights)


def _refusal(write: Callable[[], None]) -> errors.UserError | None:
    """What a command would end with, as in vlguard_jax/cli.py."""
    try:
        write()
    except errors.UserError as e:
        return e
    except OSError as e:
        if (failed := machine.failure(e)) is None:
            raise
        return errors.UserError(failed.line)
    return None


def _tried(where: Place, writer: str, fails: bool, folder: pathlib.Path) -> dict[str, object]:
    """Write there and look at what has changed; see RIGHT."""
    os.environ["HOME"] = str(folder / "people/me")
    if where.write_protected:
        _drop_rights()
    before = sandbox.listing(folder)
    refusal = _refusal(lambda: _write_run(where.path) if writer == "run" else _write_folder(where.path, writer, fails))
    after = sandbox.listing(folder)
    lexical = (
        os.path.join(folder, where.path) if writer == "run" else os.path.normpath(os.path.join(folder, where.path))
    )
    target = os.path.relpath(os.path.realpath(lexical), folder) if refusal is None else ""
    ours = {os.path.normpath(f"{target}/{name}") for name in (OURS if writer == "run" else NEW)} if target else set()
    goes = (
        ours
        if writer == "run"
        else {p for p in before if _below(p, target)}
        if where.goes and writer == "model over"
        else set()
    )
    lost = [p for p, was in before.items() if after.get(p) != was and p not in goes]
    stray = [p for p in after.keys() - before.keys() if p not in ours and p != target and not _below(target, p)]
    if refusal and not lost and not stray:
        raise refusal
    return {"lost": lost, "stray": stray, "whole": _whole(folder / target, writer)}


def _below(path: str, above: str) -> bool:
    return path.startswith(f"{above}/")


def _whole(target: pathlib.Path, writer: str) -> bool:
    """Whether what was written is there, and nothing besides."""
    if writer == "run":
        return json.loads((target / workdir.CONFIG_FILE).read_bytes()) == workdir.plain(SETTINGS)
    return {path.name: path.read_text() for path in target.iterdir()} == NEW


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One place, and one of the writers."""
    plant(folder)
    writer = rng.choice(list(KINDS))
    where = rng.choice(KINDS[writer])(rng, folder)
    fails = writer != "run" and rng.random() < 0.15
    if where.goes and writer != "model over":
        where = dataclasses.replace(where, must="be refused")
    if rng.random() < 0.5 and not os.path.isabs(where.path):
        where = dataclasses.replace(where, path=os.path.join(folder, where.path))
    what = f"{writer}{', fails' if fails else ''}: {where.what}"
    right = sandbox.Nothing if fails or where.must == "be refused" else RIGHT
    return sandbox.Trial(
        what, lambda: _tried(where, writer, fails, folder), right, must_read=not fails and where.must == "be written"
    )
