"""All writing of whole folders: under a unique temporary name in the same folder, then renamed. A failure never loses
an existing folder.

Deletes only what the same call has made, leftovers of killed calls and, with `replace`, the folder that was there when
the call began.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import errno
import fcntl
import os
import pathlib
import re
import secrets
import shutil
import stat

from vlguard_jax import errors
from vlguard_jax import machine

PROGRAMS = "JAX_COMPILATION_CACHE_DIR"
ANOTHER, GROUP = "is another user's", "can be written to by its group"
# What mounted buckets answer where a folder is renamed (gcsfuse the first, or the second before 0.35).
_FILES_ONLY = (errno.EMFILE, errno.ENOSYS, errno.EOPNOTSUPP)
_LONGEST = 40  # characters of a folder's name in the temporary one
_SCRATCH = re.compile(rf"\..{{1,{_LONGEST}}}\.[0-9a-f]{{16}}\.partial", re.DOTALL)


@contextlib.contextmanager
def scratch(folder: pathlib.Path, name: str, key: str = "") -> Iterator[pathlib.Path]:
    """A new folder below `folder`, deleted at the end with its contents.

    name: part of its own name, which is unique. key: 16 hexadecimal digits. With one, the folder stays if the command
    is stopped or killed, and the next call with the same key goes on with it; those of other keys are deleted.
    """
    if key:
        sweep(folder, f".{name[:_LONGEST]}.", keep=key)
    new, descriptor = (_kept(folder, name, key) if key else None) or _made(folder, name)
    try:
        yield new
    except BaseException as e:
        if not key or isinstance(e, Exception):
            shutil.rmtree(new, ignore_errors=True)
        raise
    else:
        shutil.rmtree(new, ignore_errors=True)
    finally:
        os.close(descriptor)


def _kept(folder: pathlib.Path, name: str, key: str) -> tuple[pathlib.Path, int] | None:
    """The folder of this key, new or not, and the descriptor that holds its lock; None while another process has
    it, or without locks."""
    new = folder / f".{name[:_LONGEST]}.{key}.partial"
    with contextlib.suppress(FileExistsError):
        new.mkdir()
    try:
        descriptor = _opened(new)
    except OSError:  # a link or a file of that name, or just deleted
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == os.lstat(new).st_ino:
            return new, descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _made(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, int]:
    """A new folder and the descriptor that holds its lock, on a file system with locks."""
    while True:
        new = folder / f".{name[:_LONGEST]}.{secrets.token_hex(8)}.partial"
        new.mkdir()  # fails if anything is there, even a link
        with contextlib.suppress(
            FileNotFoundError
        ):  # deleted by another process's `sweep` before it was locked: try again
            descriptor = _opened(new)
            with contextlib.suppress(OSError):  # no locks here; `sweep` then ignores it
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.lexists(new):
                return new, descriptor
            os.close(descriptor)


def remove(path: pathlib.Path) -> None:
    """Delete a folder. However it ends, no part of the folder stays under its name.

    Raises:
      UserError: it is a link.
    """
    check_no_link(path)
    with scratch(path.parent, path.name) as away:
        rename(path, away / path.name)


def sweep(folder: pathlib.Path, start: str = "", keep: str = "") -> None:
    """Delete the folders of killed processes that `scratch` made in `folder`; those of running processes are locked.

    start: of their names; keep: not the one of this key.
    """
    for entry in sorted(folder.iterdir()):
        if not entry.name.startswith(start) or (keep and entry.name.endswith(f".{keep}.partial")):
            continue
        if not _SCRATCH.fullmatch(entry.name) or entry.is_symlink() or not entry.is_dir():
            continue
        with contextlib.suppress(OSError):  # just deleted, another user's, in use, or no locks here
            descriptor = _opened(entry)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry, ignore_errors=True)
            finally:
                os.close(descriptor)


def _opened(folder: pathlib.Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


@contextlib.contextmanager
def new_folder(path: pathlib.Path, *, replace: bool = False, key: str = "") -> Iterator[pathlib.Path]:
    """A new folder that becomes `path` when the block succeeds, and is deleted when it fails.

    If several processes write the same `path`, the first to finish wins.

    Args:
      path: must not exist, or be an empty folder.
      replace: an existing folder is deleted once it is replaced.
      key: the folder is kept for the next call with the same key if the command is stopped; see `scratch`.

    Raises:
      UserError: `path` is a link, or another process has written it; what is there stays.
      OSError: it cannot be written; what was there stays.
    """
    target = pathlib.Path(os.path.abspath(path))
    check_no_link(path)
    with machine.naming(path):
        before = identity(target)  # fails for an impossible name, before anything is made
    made: list[pathlib.Path] = []
    new = target
    try:
        with machine.naming(path):
            for folder in reversed([folder for folder in target.parents if not os.path.lexists(folder)]):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                    made.insert(0, folder)
            identity(target)  # again, if its parent folder is new
        with contextlib.ExitStack() as stack:
            with machine.naming(path):
                new = stack.enter_context(scratch(target.parent, target.name, key))
            with machine.naming(path, new):
                yield new
                _replace(target, new, before) if before and replace else take(new, target)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def take(new: pathlib.Path, target: pathlib.Path) -> None:
    """Rename the folder `new` to `target`, which must not exist or be an empty folder.

    Raises:
      UserError: something is there; it stays unchanged.
    """
    try:
        rename(new, target)  # never replaces a non-empty folder, a file or a link
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise errors.UserError(
            f"{target}: something is there already, perhaps of another process that writes it too; it stays"
        ) from e


def rename(old: pathlib.Path, new: pathlib.Path) -> bool:
    """Rename a folder to what must not exist or be an empty folder. Where only files can be renamed, as on a mounted
    bucket, they are, one after another, with what makes a checkpoint of a folder last: its JSON files, the manifest.

    Returns whether it happened at once.

    Raises:
      OSError: it cannot be; `old` is as it was.
    """
    try:
        os.rename(old, new)
        return True
    except OSError as e:
        if e.errno not in _FILES_ONLY or old.is_symlink() or not old.is_dir():
            raise
        _rename_files(old, new)
        return False


def renamed(folder: pathlib.Path) -> bool:
    """Whether folders can be renamed in `folder`, which is tried with one; on a mounted bucket only files can."""
    with scratch(folder, "rename") as place:
        (place / "old").mkdir()
        (place / "old" / "file").touch()
        try:
            os.rename(place / "old", place / "new")
        except OSError as e:
            if e.errno not in _FILES_ONLY:
                raise
            return False
    return True


def _rename_files(old: pathlib.Path, new: pathlib.Path) -> None:
    if os.path.lexists(new) and any(new.iterdir()):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(new))
    below = sorted(old.rglob("*"), key=lambda path: (path.suffix == ".json", path.name == "manifest.json", path))
    new.mkdir(exist_ok=True)
    moved = []
    try:
        for path in sorted(path for path in below if path.is_dir() and not path.is_symlink()):
            (new / path.relative_to(old)).mkdir()
        for path in below:
            if path.is_symlink() or not path.is_dir():
                os.rename(path, new / path.relative_to(old))
                moved.append(path)
    except BaseException:
        for path in reversed(moved):
            with contextlib.suppress(OSError):
                os.rename(new / path.relative_to(old), path)
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_no_link(path: str | os.PathLike[str]) -> None:
    """Raise UserError if `path`, where a folder is to be written, is a link or an impossible name."""
    target = os.path.abspath(path)
    if "\0" in target:
        raise errors.UserError(f"{errors.short(os.fspath(path))}: not a possible name of a folder")
    if os.path.islink(target):
        raise errors.UserError(f"{path} is a link to {os.readlink(target)}; name the folder itself, or remove the link")


def check_own(*paths: pathlib.Path) -> None:
    """Check that the files and folders that a run continues to write, with all their contents, are its own.

    Raises:
      UserError: one of them is a link, which leads elsewhere, or a pipe or a device, which may block forever.
    """
    for path in paths:
        for found in (path, *(() if path.is_symlink() else path.rglob("*"))):
            if odd(found):
                raise errors.UserError(
                    f"{found} is a link, a pipe or a device, and a run writes there; remove it, or choose"
                    " another folder"
                )


def odd(path: pathlib.Path) -> bool:
    """Whether `path` is something other than a file or a folder; a link counts as such."""
    return os.path.lexists(path) and (path.is_symlink() or not (path.is_file() or path.is_dir()))


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """A folder's identity, which differs from that of a later folder of the same name; None if nothing is there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _replace(target: pathlib.Path, new: pathlib.Path, before: tuple[int, int]) -> None:
    """Rename `new` to `target`; the folder `before` in its place is deleted last."""
    old = new.with_name(f"{new.stem}.{secrets.token_hex(4)}.old")  # never there, even after a kill
    at_once = True
    with contextlib.suppress(FileNotFoundError):
        at_once = rename(target, old)
    try:
        if at_once and identity(old) not in (before, None):
            raise errors.UserError(f"{target}: another process has written it meanwhile; what it wrote stays")
        take(new, target)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(target):
            rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if os.path.lexists(old):
        raise errors.UserError(
            f"{target} is written, but {old}, which was there before, could not be deleted; delete it"
        )


def check_writers(place: pathlib.Path, what: str, way: str) -> str:
    """Who else can write to the folder `place`, in words for a message that starts with `what`; "" for nobody, or if it
    does not exist.

    Raises:
      UserError: everyone can, or it is not a folder.
    """
    try:
        found = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except ValueError as e:  # a null character
        raise errors.UserError(f"{errors.short(os.fspath(place))}: not a possible name of a folder") from e
    if not stat.S_ISDIR(found.st_mode):
        raise errors.UserError(f"{what} is not a folder; {way}")
    if found.st_mode & stat.S_IWOTH:
        raise errors.UserError(f"{what} can be written to by everyone; remove that permission (chmod o-w), or {way}")
    if found.st_uid not in (os.geteuid(), 0):
        return ANOTHER
    return GROUP if found.st_mode & stat.S_IWGRP else ""


def check_programs(environment: Mapping[str, str]) -> None:
    """Check that strangers cannot write to JAX's cache of compiled programs, since these are run.

    Raises:
      UserError: it is another user's, or everyone can write to it.
    """
    named = environment.get(PROGRAMS, "")
    if not named or "://" in named:
        return
    way = f"name a folder of your own with {PROGRAMS}"
    if check_writers(pathlib.Path(named), f"{PROGRAMS}={named}", way) == ANOTHER:
        raise errors.UserError(f"{PROGRAMS}={named} {ANOTHER}, and programs kept there are run; {way}")
