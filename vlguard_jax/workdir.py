"""A working directory belongs to one config: written with the first result, compared when a run is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import errno
import fcntl
import io
import json
import logging
import os
from pathlib import Path
import re
import socket
import stat
import tempfile
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import fingerprints
from vlguard_jax import folders

CONFIG_FILE = "config.json"
_ADDRESS = re.compile(r"(gs|s3|az|abfs|hdfs|https?):/+")  # as a path, in which slashes in a row are one
MODEL, BEST = "model", "best"  # folders of a training's tuned models
LOCK_FILE = ".vlguard_jax.lock"  # exists while a process works in the folder
# Files that runs continue to write; all others are replaced by renaming, or checked when opened (checkpoints/store.py).
WRITTEN_ON = (
    *("metrics.jsonl", "tensorboard", "logs", "probe.jsonl", "probe", "spikes.jsonl", "wandb_id.txt"),
    *("generations.jsonl", "verdicts.jsonl", "endpoints"),
)


def plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as a JSON-ready dict."""
    return json.loads(json.dumps(dataclasses.asdict(settings), sort_keys=True))


def config_hash(settings: Any) -> str:
    """sha256 over the settings that are not at their defaults."""
    return fingerprints.of(settings)


def check(folder: Path, settings: Any, *, free: tuple[str, ...] = (), why: Mapping[str, str] | None = None) -> None:
    """Raise UserError if `folder` is the working directory of another config, or its config.json is damaged. Without
    the file it belongs to nobody, unless its results record settings (`compare`).

    free, why: see `compare`.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return
    try:
        stored = files.read_object(path, finite=False)
    except errors.UserError as e:
        damage = str(e).split(";")[0]  # the rest is advice about a file from others
        way = "put it back, or delete it: what the results themselves record is compared then"
        raise errors.UserError(f"--workdir={folder}: {damage}; {way}") from e
    compare(stored, settings, f"--workdir={folder}", free=free, why=why)


def compare(
    stored: Mapping[str, Any],
    settings: Any,
    where: str,
    *,
    free: tuple[str, ...] = (),
    why: Mapping[str, str] | None = None,
) -> None:
    """Check that `stored`, the settings that results were made with, equal `settings`. where: the results, for the
    message.

    `free` names settings (or sections) that may differ when a run is resumed because they change no result; `why` tells
    of others, where it is not plain, what they change. A setting that did not exist when `stored` was written counts as
    having its default.

    Raises:
      UserError: they differ; one difference is named: what was set before what followed from it, as a model before the
        marks that it brings.
    """
    differ = [
        (key, ours, theirs)
        for key, ours, theirs in _differences(plain(settings), _completed(stored, settings))
        if not any(key == f or key.startswith(f + ".") for f in free)
    ]
    if differ:
        key, ours, theirs = min(differ, key=lambda one: _place(settings, one[0]))
        more = f" (and {len(differ) - 1} more)" if len(differ) > 1 else ""
        raise errors.UserError(
            f"{where} belongs to another run: config.{key} is {errors.short(ours)} here and {errors.short(theirs)}"
            f" there{(why or {}).get(key, '')}{more}; choose another --workdir, or the same config to resume"
        )


def check_unclaimed(folder: Path, results: str) -> None:
    """Raise UserError if `folder` holds `results`, the name of a file or folder, but no record of their settings."""
    if (folder / results).exists() and not (folder / CONFIG_FILE).exists():
        raise errors.UserError(
            f"--workdir={folder} holds {results} and no {CONFIG_FILE}, which said what it was made with; put that file"
            " back, or choose another --workdir"
        )


def prepare(folder: Path) -> None:
    """Make `folder` if it does not exist, without claiming it: a refused run must not block the next one.

    Raises:
      UserError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    # the last two: a name with a null character, or with a thousand folders
    except (OSError, ValueError, RecursionError) as e:
        raise errors.UserError(f"--workdir={folder} cannot be written: {e}") from e


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Lock `folder` against other processes. The kernel releases the lock when this process ends, however it ends.

    Makes the folder if it does not exist, and removes it again if nothing was written. On a file system without locks
    (some mounts of buckets) it only warns; over NFS it depends on the server whether other machines see the lock.

    Raises:
      UserError: another process holds the lock, the folder cannot be written, a file in it leads elsewhere, or it is
        the address of a bucket.
    """
    if address := _ADDRESS.match(str(folder)):
        raise errors.UserError(
            f"--workdir={address[1]}://{str(folder)[address.end() :]} is the address of a bucket, not a folder: mount"
            " the bucket (gcsfuse does) and name the folder there"
        )
    made = [above for above in (folder, *folder.parents) if not os.path.lexists(above)]
    try:
        prepare(folder)
        with _locked(folder / LOCK_FILE, f"--workdir={folder}"):
            folders.sweep(folder)
            folders.check_own(*(folder / name for name in WRITTEN_ON))
            yield
    finally:
        for above in made:
            with contextlib.suppress(OSError, ValueError):  # something was written, or the folder could not be made
                above.rmdir()


@contextlib.contextmanager
def _locked(path: Path, where: str) -> Iterator[None]:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        except OSError as e:
            raise errors.UserError(f"{where}: {path.name} cannot be written: {e.strerror}") from e
        with open(descriptor, "r+b", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise errors.UserError(f"{where}: {path.name} is a pipe or a device, not a file; remove it")
            held = _lock(file, where)
            if not _same(path, descriptor):  # its holder has just removed it
                continue
            if held:
                file.truncate(0)
                file.write(f"{os.getpid()} {socket.gethostname()}\n".encode())
            try:
                yield
            finally:
                if _same(path, descriptor):
                    path.unlink()
            return


def _lock(file: io.FileIO, where: str) -> bool:
    """Lock the file; False where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        pid, _, host = file.read(300).decode(errors="replace").strip().partition(" ")
        who = f" (pid {pid[:20]} on {host[:100]})" if pid.isdecimal() and host.isprintable() else ""
        raise errors.UserError(
            f"another process{who} is working in {where}; wait for it, end it, or choose another --workdir"
        ) from e
    except OSError as e:
        if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF):
            raise
        logging.getLogger(__name__).warning(
            "%s: no locks on this file system (%s); let no other process work there", where, e.strerror
        )
        return False
    return True


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def claim(folder: Path, settings: Any, *, free: tuple[str, ...] = ()) -> None:
    """Make `folder` the working directory of `settings`, or `check` that it already is. Call it with the first result.

    Raises:
      UserError: the folder belongs to another config, or cannot be written.
    """
    check(folder, settings, free=free)
    prepare(folder)
    try:
        files.write_text(folder / CONFIG_FILE, json.dumps(plain(settings), indent=1, sort_keys=True) + "\n")
    except OSError as e:
        raise errors.UserError(f"--workdir={folder} cannot be written: {e}") from e


def _completed(stored: Any, settings: Any) -> Any:
    """`stored`, with the defaults of settings that it lacks."""
    if not isinstance(stored, Mapping):
        return stored
    if isinstance(settings, Mapping):
        return {key: _completed(value, settings.get(key)) for key, value in stored.items()}
    if not dataclasses.is_dataclass(settings):
        return stored
    known = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return _defaults(settings) | {key: _completed(value, known.get(key)) for key, value in stored.items()}


def _defaults(settings: Any) -> dict[str, Any]:
    result = {}
    for field in dataclasses.fields(settings):
        if field.default is not dataclasses.MISSING:
            result[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            result[field.name] = field.default_factory()
    return json.loads(json.dumps(result, default=dataclasses.asdict))


def _place(settings: Any, key: str) -> tuple[bool, int]:
    """Where a dotted setting stands: marks, which follow from models and data, last; else in the order of the class."""
    places = {field.name: i for i, field in enumerate(dataclasses.fields(settings))}
    return key.endswith("stand_in"), places.get(key.partition(".")[0], len(places))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(a.keys() | b.keys()):
        x, y = a.get(key), b.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            yield from _differences(x, y, f"{prefix}{key}.")
        elif x != y:
            yield f"{prefix}{key}", x, y
