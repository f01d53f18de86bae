"""What a folder that is being written has already, so that the same command goes on from there after a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import hashlib
import json
import os
import pathlib

from vlguard_jax.checkpoints import manifest

_JOURNAL = ".journal"  # a line for each finished part
_KEPT = "arrays"  # Orbax's, whose parts are arrays


class Job:
    """The writing of one folder.

    key: names the conversion, see `key_of`; without one nothing is kept when it is interrupted. tell: called with the
    bytes of each tensor that is written, or was before. done: {part: what its writer noted}. hashes: of finished files.
    weights_sha256: of the written model, where it is known. further: makes {name: text} of files to write at the end.
    """

    def __init__(self, key: str = "", tell: Callable[[int], object] = lambda n: None):
        self.key, self.tell = key, tell
        self.done: dict[str, str] = {}
        self.hashes: dict[str, manifest.File] = {}
        self.counted: manifest.Census | None = None
        self.weights_sha256 = ""
        self.further: Callable[[], Mapping[str, str]] = dict
        self._folder = pathlib.Path()

    def begin(self, folder: pathlib.Path) -> None:
        """Take up what is in the new folder. Files that no line of the journal names are half-written: deleted."""
        self._folder = folder
        self.done = _whole(folder / _JOURNAL)
        for above, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name != _KEPT]
            for name in names:
                path = pathlib.Path(above, name)
                if name != _JOURNAL and str(path.relative_to(folder)) not in self.done:
                    path.unlink()

    def add(self, part: str, note: str) -> None:
        """A part is whole."""
        self.done[part] = note
        if self.key:
            with (self._folder / _JOURNAL).open("a", encoding="utf-8") as file:
                file.write(json.dumps([part, note]) + "\n")

    def has(self, path: pathlib.Path) -> bool:
        """Whether this file of the folder was finished before, and still is what was written then."""
        part = str(path.relative_to(self._folder))
        if part not in self.done:
            return False
        found = manifest.of(path) if path.is_file() else None
        if found is None or found.sha256 != self.done[part]:
            path.unlink(missing_ok=True)
            return False
        self.hashes[part] = found
        return True

    def add_file(self, path: pathlib.Path, sha256: str) -> None:
        """This file of the folder is whole."""
        part = str(path.relative_to(self._folder))
        self.hashes[part] = manifest.File(path.stat().st_size, sha256)
        self.add(part, sha256)

    def end(self) -> None:
        """All parts are whole."""
        (self._folder / _JOURNAL).unlink(missing_ok=True)


def _whole(path: pathlib.Path) -> dict[str, str]:
    """What a journal says up to the first line that is not whole, as a crash of the machine leaves one. It is cut off
    there: what is added must begin a line."""
    if not path.is_file():
        return {}
    found, size = dict[str, str](), 0
    for line in path.read_bytes().splitlines(keepends=True):
        if (one := _line(line)) is None:
            break
        found |= one
        size += len(line)
    os.truncate(path, size)
    return found


def _line(line: bytes) -> dict[str, str] | None:
    try:
        match json.loads(line):
            case [str(part), str(note)] if line.endswith(b"\n"):
                return {part: note}
    except (ValueError, RecursionError):
        pass
    return None


def key_of(settings: object, sources: set[pathlib.Path]) -> str:
    """Names a conversion by its settings (of JSON's types) and by names, sizes and times of all files of its
    sources."""
    stamps = []
    for source in sorted(sources):
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file():
                found = path.stat()
                stamps.append([str(path), found.st_size, found.st_mtime_ns])
    return hashlib.sha256(json.dumps([settings, stamps]).encode()).hexdigest()[:16]
