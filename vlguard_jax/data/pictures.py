"""Stores of pictures: a folder, zip files, or both, on this machine or at an address like gs://bucket/folder.

A zip file anywhere in a folder counts as unpacked in its place: `coco/train2017.zip` with the member `train2017/1.jpg`
has the picture `coco/train2017/1.jpg`. A real file wins over a member of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import errno
import io
import os
import pathlib
import threading
from typing import Any
import unicodedata

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.data import zips

MANY_FOLDERS = 64  # more folders at a remote address are listed by one walk over everything


@dataclasses.dataclass(frozen=True)
class _Folder:
    """The contents of a folder, or of the folder that would exist if its archive were unpacked."""

    files: frozenset[str]
    # which may hold its pictures; how many characters of the name come before the member's
    archives: tuple[tuple[zips.Archive, int], ...]


class Store:
    """Pictures by name, a path relative to the store.

    Safe to share between threads; reopened when unpickled.
    """

    def __init__(self, location: str, files: _Local | _Remote, root: str, *, is_zip: bool):
        self.location = location
        self._files, self._root, self._is_zip = files, root, is_zip
        self._lock = threading.RLock()
        self._folders: dict[str, _Folder] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_folders")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock(), _folders={})

    def read(self, name: str, *, origin: str = "") -> bytes:
        """The content of a picture's file. `origin` names the record in messages.

        Raises:
          UserError: there is no such picture, its name leads out of the store, or it cannot be read.
        """
        label = f"{self.location}/{name}"
        with self.open(name, origin=origin) as file, _one_line(label):
            return (
                file.read() if isinstance(file, io.BytesIO) else files.read_limited(file, label, limits.PICTURE_BYTES)
            )

    def open(self, name: str, *, origin: str = "") -> io.BytesIO | io.BufferedReader:
        """A picture's file, at its start; a local file is not read yet. Raises as `read`."""
        checked = _checked(name, self.location)
        folder, _, last = checked.rpartition("/")
        known = self._folders.get(folder)
        if not self._is_zip and (known is None or last in known.files):
            file = self._files.open(f"{self._root}/{checked}")
            if file is not None:
                return file
        archive, member = self._member(checked, folder) or (None, "")
        if archive is not None:
            return io.BytesIO(archive.read(member))
        whose = f" (picture of {origin})" if origin else ""
        raise errors.UserError(
            f"{self.location}/{name}: no such picture{whose}; check the picture folder{self.near(name)}"
        )

    def near(self, name: str) -> str:
        """The most similar picture to the missing `name`, for the end of a message; "" if there is none."""
        checked = _checked(name, self.location)
        folder = checked.rpartition("/")[0]
        archives = self._folder(folder).archives
        for archive, cut in archives:
            if found := similar(checked[cut:], archive.names):
                return f"; {archive.label} holds {errors.short(found)}"
        if not self._is_zip and (found := self._near_file(checked)):
            return f"; there is {errors.short(found)}"
        for archive, _ in archives:
            if found := next((name for name in archive.names if _is_picture(name)), ""):
                return f"; {archive.label} holds {errors.short(found)}, for example"
        return ""

    def _near_file(self, checked: str) -> str:
        """The existing path that is most like the first part of `checked` that is missing; "" if there is none."""
        here = ""
        for part in checked.split("/"):
            names = self._files.names(self._path(here))
            if part not in names:
                found = similar(part, names)
                return f"{here}/{found}".lstrip("/") if found else ""
            here = f"{here}/{part}".lstrip("/")
        return ""

    def missing(self, names: Sequence[str]) -> list[str]:
        """The missing ones of `names`, each once, in the order given.

        Lists folders and looks up no single file. Raises as `read`.
        """
        found = self._find(names, stamps=False)
        return [name for name in dict.fromkeys(names) if name not in found]

    def stamps(self, names: Sequence[str]) -> dict[str, str]:
        """For every existing name, a text that changes with the file: size and time, or size and checksum.

        Raises as `read`.
        """
        return self._find(names, stamps=True)

    def _find(self, names: Sequence[str], *, stamps: bool) -> dict[str, str]:
        wanted: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            folder, _, last = _checked(name, self.location).rpartition("/")
            wanted.setdefault(folder, []).append((name, last))
        paths = {} if self._is_zip else {folder: self._path(folder) for folder in wanted}
        listed = self._files.list(list(paths.values()), self._root, stamps=stamps)
        found: dict[str, str] = {}
        for folder, pairs in wanted.items():
            here = listed.get(paths.get(folder, ""), {})
            found |= {name: here[last] for name, last in pairs if last in here}
            packed = [(name, f"{folder}/{last}" if folder else last) for name, last in pairs if last not in here]
            for name, checked in packed:
                if hit := self._member(checked, folder):
                    archive, member = hit
                    found[name] = archive.member(member).stamp if stamps else ""
        return found

    def _member(self, name: str, folder: str) -> tuple[zips.Archive, str] | None:
        """The archive that holds a picture, and the picture's name in it."""
        hits = [(archive, name[cut:]) for archive, cut in self._folder(folder).archives if name[cut:] in archive]
        for archive, member in hits[1:]:
            first, same = hits[0]
            if archive.member(member).stamp != first.member(same).stamp:
                raise errors.UserError(
                    f"picture {name} is in {first.label} and, another one, in {archive.label}; move one of them away"
                )
        return hits[0] if hits else None

    def _folder(self, folder: str) -> _Folder:
        folder = "" if self._is_zip else folder
        if (known := self._folders.get(folder)) is not None:
            return known
        with self._lock:
            if folder not in self._folders:
                self._folders[folder] = self._look(folder)
            return self._folders[folder]

    def _look(self, folder: str) -> _Folder:
        if self._is_zip:
            return _Folder(frozenset(), ((self._files.archive(self._root), 0),))
        path = self._path(folder)
        files = frozenset(self._files.list([path], self._root, stamps=False).get(path, {}))
        above = self._folder(folder.rpartition("/")[0]).archives if folder else ()
        cut = len(folder) + 1 if folder else 0
        # macOS: ._a.zip beside a.zip
        zipped = (name for name in sorted(files) if name.lower().endswith(".zip") and name[0] != ".")
        own = tuple((self._files.archive(f"{path}/{name}"), cut) for name in zipped)
        return _Folder(files, above + own)

    def _path(self, folder: str) -> str:
        return f"{self._root}/{folder}" if folder else self._root


def similar(wanted: str, there: Iterable[str]) -> str:
    """The path among `there` that is most likely the picture `wanted` under another name; "" if there is none.

    Compares, in this order: other case or Unicode form; a folder more or less; another folder; another extension.
    """
    path = _folded(wanted)
    last = path.rpartition("/")[2]
    best, found = 4, ""
    for name in there:
        folded = _folded(name)
        its_last = folded.rpartition("/")[2]
        if _stem(its_last) != _stem(last) or not _is_picture(name):
            continue
        longer, shorter = (folded, path) if len(folded) > len(path) else (path, folded)
        rank = 0 if folded == path else 1 if longer.endswith(f"/{shorter}") else 2 if its_last == last else 3
        if rank < best:
            best, found = rank, name
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _is_picture(name: str) -> bool:
    """Whether a member may be a picture: macOS adds its own files to archives."""
    return bool(name) and "__MACOSX" not in name and not name.rpartition("/")[2].startswith(".")


def open_store(location: str) -> Store:
    """The pictures in a folder or a zip file; `location` is a path or an address that fsspec knows, like
    gs://bucket/folder.

    Raises:
      UserError: there is neither, a zip file is incomplete, or the address needs a package that is not installed.
    """
    if not location:
        raise errors.UserError("no picture folder is named; give a folder or a zip file")
    files, root = _reach(location)
    kind = files.kind(root)
    if kind is None:
        raise errors.UserError(f"{location}: no such picture folder or zip file; check the path")
    store = Store(location, files, root, is_zip=kind == "file")
    if kind == "file":
        store._folder("")  # reads the archive's directory, to find a broken one now
    return store


class _Local:
    """Files of this machine, by path."""

    def kind(self, path: str) -> str | None:
        return "folder" if os.path.isdir(path) else "file" if os.path.isfile(path) else None

    def open(self, path: str) -> io.BytesIO | io.BufferedReader | None:
        with _one_line(path):
            try:
                file = open(path, "rb", opener=files.without_waiting)  # noqa: SIM115 -- the caller closes it
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
            try:
                files.check_regular(file, path, limits.PICTURE_BYTES)
            except BaseException:
                file.close()
                raise
            return file

    def list(self, folders: Sequence[str], top: str, *, stamps: bool) -> dict[str, dict[str, str]]:
        """The files of each folder, with their stamps if `stamps`; none for a missing folder."""
        return {folder: self._files(folder, stamps) for folder in folders}

    def names(self, folder: str) -> Sequence[str]:
        """Files and folders in a folder."""
        try:
            return os.listdir(folder)
        except OSError:
            return []

    def archive(self, path: str) -> zips.Archive:
        with _one_line(path):
            file = open(path, "rb", buffering=0, opener=files.without_waiting)  # noqa: SIM115 -- stays open as long as the archive
            return zips.Archive(
                path, files.check_regular(file, path), lambda first, n: os.pread(file.fileno(), n, first)
            )

    def _files(self, folder: str, stamps: bool) -> dict[str, str]:
        with _one_line(folder):
            try:
                with os.scandir(folder) as entries:
                    return {
                        entry.name: _local_stamp(entry.stat()) if stamps else "" for entry in entries if _is_file(entry)
                    }
            except (FileNotFoundError, NotADirectoryError):
                return {}


class _Remote:
    """Files behind an fsspec file system, by path without the protocol."""

    def __init__(self, system: Any):
        self._system = system

    def kind(self, path: str) -> str | None:
        with _one_line(path):
            return "folder" if self._system.isdir(path) else "file" if self._system.isfile(path) else None

    def open(self, path: str) -> io.BytesIO | io.BufferedReader | None:
        with _one_line(path):
            try:
                content = self._system.cat_file(path, start=0, end=limits.PICTURE_BYTES + 1)
            except (FileNotFoundError, IsADirectoryError):
                return None
        if len(content) > limits.PICTURE_BYTES:
            raise errors.UserError(f"{path}: more than {limits.PICTURE_BYTES:,} bytes; is it the right file?")
        return io.BytesIO(content)

    def list(self, folders: Sequence[str], top: str, *, stamps: bool) -> dict[str, dict[str, str]]:
        """As `_Local.list`; `top` is a folder that contains all of them."""
        found: dict[str, dict[str, str]] = {folder: {} for folder in folders}
        with _one_line(top):
            for info in self._walk(folders, top):
                folder, _, name = info["name"].rstrip("/").rpartition("/")
                if info["type"] == "file" and folder in found:
                    found[folder][name] = _remote_stamp(info)
        return found

    def names(self, folder: str) -> Sequence[str]:
        """As `_Local.names`."""
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in self._system.ls(folder, detail=False)]
        except OSError:
            return []

    def archive(self, path: str) -> zips.Archive:
        def read(first: int, n: int) -> bytes:
            with _one_line(path):
                return self._system.cat_file(path, start=first, end=first + n)

        with _one_line(path):
            size = self._system.size(path)
        return zips.Archive(path, size, read)

    def _walk(self, folders: Sequence[str], top: str) -> Iterator[dict[str, Any]]:
        if len(folders) > MANY_FOLDERS:
            yield from self._system.find(top, detail=True).values()
            return
        for folder in folders:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                yield from self._system.ls(folder, detail=True)


def _reach(location: str) -> tuple[_Local | _Remote, str]:
    if "://" not in location:
        return _Local(), os.path.normpath(location)
    import fsspec  # late: most runs read local files

    with _one_line(location):
        system, root = fsspec.core.url_to_fs(location)
    if "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol):
        return _Local(), root
    return _Remote(system), root.rstrip("/")


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn errors inside the context into a UserError of one line about `what`: a disk, a network or a missing package
    may raise anything."""
    try:
        yield
    except (errors.UserError, MemoryError):
        raise
    except Exception as e:
        text = (getattr(e, "strerror", None) or str(e)).strip().splitlines()
        raise errors.UserError(f"{what}: cannot be read: {text[0] if text else type(e).__name__}") from e


def _checked(name: str, location: str) -> str:
    """`name` in normal form.

    Raises:
      UserError: it leads out of the store, or is empty.
    """
    if name and name[0] not in "/." and "/." not in name and "//" not in name and "\0" not in name and name[-1] != "/":
        return name
    parts = pathlib.PurePosixPath(name).parts
    if not parts or parts[0].startswith("/") or ".." in parts or "\0" in name:
        raise errors.UserError(f"{location}: picture {errors.short(name)} must be a path inside the picture folder")
    return "/".join(parts)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as e:
        if e.errno != errno.ELOOP:  # a link to itself is not a file, and the others can be read
            raise
        return False


def _local_stamp(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _remote_stamp(info: dict[str, Any]) -> str:
    keys = ("etag", "ETag", "md5Hash", "crc32c", "mtime", "updated", "LastModified", "last_modified", "created")
    return f"{info.get('size')} {next((info[key] for key in keys if info.get(key)), '')}"
