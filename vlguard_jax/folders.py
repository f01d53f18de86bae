"""The one way out for whole folders: made beside under a name of one's own, then renamed.
What was there is never lost to a failure.

Nothing is deleted but what the same call has made, what it left behind when it was killed, and, with `replace`,
the folder that stood there when it began.
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
_LONGEST = 40  # characters of a folder's name that the temporary one shows
_SCRATCH = re.compile(rf"\..{{1,{_LONGEST}}}\.[0-9a-f]{{16}}\.partial", re.DOTALL)


@contextlib.contextmanager
def scratch(folder: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """A new folder below `folder`, deleted at the end with what is left in it.

    name: shown in its own, which is unique.
    """
    new, descriptor = _made(folder, name)
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)
        os.close(descriptor)


def _made(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, int]:
    """A new folder and the descriptor that keeps it locked, on a file system that has locks."""
    while True:
        new = folder / f".{name[:_LONGEST]}.{secrets.token_hex(8)}.partial"
        new.mkdir()  # fails if anything is there, a link too
        with contextlib.suppress(FileNotFoundError):  # swept by another process before it was locked: once more
            descriptor = _opened(new)
            with contextlib.suppress(OSError):  # no locks here: then `sweep` leaves it alone
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.lexists(new):
                return new, descriptor
            os.close(descriptor)


def sweep(folder: pathlib.Path) -> None:
    """Delete what `scratch` made in `folder` for a process that was killed; one that still lives holds its own
    locked."""
    for entry in sorted(folder.iterdir()):
        if not _SCRATCH.fullmatch(entry.name) or entry.is_symlink() or not entry.is_dir():
            continue
        with contextlib.suppress(OSError):  # gone just now, another user's, in use, or no locks here
            descriptor = _opened(entry)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry, ignore_errors=True)
            finally:
                os.close(descriptor)


def _opened(folder: pathlib.Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


@contextlib.contextmanager
def new_folder(path: pathlib.Path, *, replace: bool = False) -> Iterator[pathlib.Path]:
    """A new folder that becomes `path` when the block ends well, and is deleted when it does not.

    Of several that write one `path` at a time, the first to end has it.

    Args:
      path: nothing, or an empty folder, may be there.
      replace: the folder that is there now is deleted, once its place is taken.

    Raises:
      UserError: `path` is a link, or somebody else has taken its place; what is there stays.
      OSError: it cannot be written; what was there is still there.
    """
    target = pathlib.Path(os.path.abspath(path))
    check_no_link(path)
    with machine.naming(path):
        before = identity(target)  # fails for what can be no name, before anything is made
    made: list[pathlib.Path] = []
    new = target
    try:
        with machine.naming(path):
            for folder in reversed([folder for folder in target.parents if not os.path.lexists(folder)]):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                    made.insert(0, folder)
            identity(target)  # where its folder is new only now
        with contextlib.ExitStack() as stack:
            with machine.naming(path):
                new = stack.enter_context(scratch(target.parent, target.name))
            with machine.naming(path, new):
                yield new
                _replace(target, new, before) if before and replace else take(new, target)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def take(new: pathlib.Path, target: pathlib.Path) -> None:
    """Give the folder `new` the name `target`, which nothing, or an empty folder, has.

    Raises:
      UserError: something is there; it stays as it is.
    """
    try:
        new.rename(target)  # never onto a folder that holds something, a file or a link
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise errors.UserError(
            f"{target}: something is there already, perhaps of another process that writes it too; it stays"
        ) from e


def check_no_link(path: str | os.PathLike[str]) -> None:
    """Raise UserError if `path`, where a folder is to be written, is a link, or can be no name."""
    target = os.path.abspath(path)
    if "\0" in target:
        raise errors.UserError(f"{errors.short(os.fspath(path))}: no name of a folder")
    if os.path.islink(target):
        raise errors.UserError(f"{path} is a link to {os.readlink(target)}; name the folder itself, or remove the link")


def check_own(*paths: pathlib.Path) -> None:
    """See that what a run goes on writing, a file or a folder with all that is in it, is its own.

    Raises:
      UserError: something there is a link, which leads elsewhere, or a pipe or a device, which may never end.
    """
    for path in paths:
        for found in (path, *(() if path.is_symlink() else path.rglob("*"))):
            if odd(found):
                raise errors.UserError(
                    f"{found} is a link, a pipe or a device, and a run writes there; remove it, or choose"
                    " another folder"
                )


def odd(path: pathlib.Path) -> bool:
    """Whether something is there that is neither a file nor a folder, a link included."""
    return os.path.lexists(path) and (path.is_symlink() or not (path.is_file() or path.is_dir()))


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """What tells a folder from another of its name; None where nothing is."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _replace(target: pathlib.Path, new: pathlib.Path, before: tuple[int, int]) -> None:
    """Give `new` the name `target`; the folder `before` that had it is deleted last."""
    old = new.with_suffix(".old")
    with contextlib.suppress(FileNotFoundError):
        target.rename(old)
    try:
        if identity(old) not in (before, None):
            raise errors.UserError(f"{target}: another process has written it meanwhile; what it wrote stays")
        take(new, target)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(target):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if os.path.lexists(old):
        raise errors.UserError(
            f"{target} is written, but {old}, which was there before, could not be deleted; delete it"
        )


def check_writers(place: pathlib.Path, what: str, way: str) -> str:
    """Who else can write to the folder `place`, in words for a message that begins with `what`;
    "" for nobody, or if it is not there.

    Raises:
      UserError: everyone, or it is no folder.
    """
    try:
        found = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except ValueError as e:  # a null character
        raise errors.UserError(f"{errors.short(os.fspath(place))}: no name of a folder") from e
    if not stat.S_ISDIR(found.st_mode):
        raise errors.UserError(f"{what} is no folder; {way}")
    if found.st_mode & stat.S_IWOTH:
        raise errors.UserError(f"{what} can be written to by everyone; take that right away (chmod o-w), or {way}")
    if found.st_uid not in (os.geteuid(), 0):
        return ANOTHER
    return GROUP if found.st_mode & stat.S_IWGRP else ""


def check_programs(environment: Mapping[str, str]) -> None:
    """See that JAX's cache of compiled programs, which are run, is not one that strangers can write to.

    Raises:
      UserError: it is another user's, or everyone can write to it.
    """
    named = environment.get(PROGRAMS, "")
    if not named or "://" in named:
        return
    way = f"name a folder of your own with {PROGRAMS}"
    if check_writers(pathlib.Path(named), f"{PROGRAMS}={named}", way) == ANOTHER:
        raise errors.UserError(f"{PROGRAMS}={named} {ANOTHER}, and what is kept there is run; {way}")
