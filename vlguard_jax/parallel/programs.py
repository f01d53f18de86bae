"""Compiled programs are kept in the user's cache, so that the second start of a command need not compile.

They lie in vlguard_jax/programs below $XDG_CACHE_HOME or ~/.cache, apart for each kind of processor: XLA's programs for
CPUs run on the kind that they were compiled for, which is not part of JAX's key. What else decides about a program is:
its operations, versions, flags and devices. JAX's own variables come first: JAX_COMPILATION_CACHE_DIR names another
folder, JAX_ENABLE_COMPILATION_CACHE=false keeps nothing, JAX_COMPILATION_CACHE_MAX_SIZE is the size in bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pathlib
import platform
import stat

import filelock
import jax

from vlguard_jax import errors
from vlguard_jax import folders

SIZE = 2 * 2**30  # bytes of the programs for one kind of processor; those used longest ago are deleted first
QUICK = 0.1  # seconds; what compiles faster is not kept
_WAY = f"name a folder of your own with {folders.PROGRAMS}, or keep none: JAX_ENABLE_COMPILATION_CACHE=false"
_PATIENCE = 10  # seconds for the lock, as JAX waits
_KEPT, _USED = "-cache", "-atime"  # JAX writes NAME-cache and then NAME-atime
# What a processor can do, on x86 and ARM.
_TELLING = {
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
}


def keep() -> pathlib.Path | None:
    """Keep the programs that this process compiles, and take those that are kept; returns the folder. Call it before
    anything is compiled, and once the processes have joined.

    None, and nothing is kept: with several processes (of which JAX lets the first alone write, and one that compiles
    would wait for others that do not: name a folder that all see), where JAX's variables say otherwise, or where the
    folder cannot be made, which is told.

    Raises:
      UserError: the folder is another user's, others can write to it, or it is a link: what is kept there is run.
    """
    values = jax.config.values
    if values["jax_compilation_cache_dir"] or not values["jax_enable_compilation_cache"] or jax.process_count() > 1:
        return None
    own = os.environ.get("XDG_CACHE_HOME", "")
    base = pathlib.Path(os.path.expanduser(own if os.path.isabs(own) else "~/.cache"))
    folder = base / "vlguard_jax" / "programs" / processor()
    try:
        base.mkdir(parents=True, exist_ok=True)
        for part in (folder.parents[1], folder.parents[0], folder):
            with contextlib.suppress(FileExistsError):
                part.mkdir(mode=0o700)
            _check_private(part)
        folder.chmod(0o700)
        _mend(folder)
    except OSError as e:
        logging.getLogger(__name__).warning("compiled programs are not kept: %s: %s; %s", folder, e.strerror, _WAY)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
        jax.config.update("jax_compilation_cache_max_size", SIZE)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", QUICK)
    return folder


def processor(told: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """16 hexadecimal digits for this kind of processor, as `told` by Linux."""
    words = {platform.machine(), platform.processor()}
    with contextlib.suppress(OSError):
        lines = (line.partition(":")[::2] for line in told.read_text(errors="replace").splitlines())
        words |= {f"{name.strip()}: {value.strip()}" for name, value in lines if name.strip() in _TELLING}
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:16]


def _check_private(folder: pathlib.Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise errors.UserError(f"{folder}, where compiled programs are kept, is no folder of its own; {_WAY}")
    if found.st_uid != os.geteuid():
        raise errors.UserError(f"{folder} {folders.ANOTHER}, and programs kept there are run; {_WAY}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise errors.UserError(
            f"{folder} can be written to by others, and programs kept there are run; delete it, or {_WAY}"
        )


def _mend(folder: pathlib.Path) -> None:
    """Delete what a process left half-written when it was killed: JAX would read one part without the other in vain
    at every start."""
    with contextlib.suppress(filelock.Timeout), filelock.FileLock(folder / ".lockfile", timeout=_PATIENCE):
        names = {path.name for path in folder.iterdir()}
        for part, other in ((_KEPT, _USED), (_USED, _KEPT)):
            for name in names:
                if name.endswith(part) and name.removesuffix(part) + other not in names:
                    (folder / name).unlink(missing_ok=True)
