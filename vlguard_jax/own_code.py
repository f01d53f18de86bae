"""Code of the user's own, named in a config as "package.module:name": a loss, a judge, a benchmark.

It is imported only where a config or a flag names it, never because a result file does.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import os
import pathlib
import sys
import traceback
from types import ModuleType
from typing import Any

from vlguard_jax import errors

BETWEEN = ":"  # module and name


@dataclasses.dataclass(frozen=True)
class Own:
    """An object of the user's.

    name: "package.module:name". sha256: of the file that defines the module. file: that file. where: the setting that
    names it.
    """

    name: str
    value: Any
    sha256: str
    file: str
    where: str

    @contextlib.contextmanager
    def blamed(self, doing: str) -> Iterator[None]:
        """Make a UserError of one line, with file and line, of what the user's code raises; its UserErrors pass."""
        try:
            yield
        except errors.UserError:
            raise
        except Exception as e:
            raise errors.UserError(
                f"{self.where}: {self.name} failed {doing}: {_told(e, self.file)}; correct it (VLGUARD_DEBUG=1 shows"
                " the whole trace)"
            ) from e

    def problem(self, what: str) -> errors.UserError:
        """The error about an object that is not what it must be."""
        return errors.UserError(f"{self.where}: {self.name} ({self.file}) {what}")


@functools.cache
def load(name: str, where: str) -> Own:
    """The object of this name; modules are sought on the Python path and in the folder where the command was started.

    Args:
      name: "package.module:name".
      where: the setting that names it, for messages.

    Raises:
      UserError: there is no such module or name, or the module fails when it is imported.
    """
    module, _, attribute = name.partition(BETWEEN)
    if not module or not attribute:
        raise errors.UserError(f"{where}={errors.short(name)} must be written as package.module:name")
    found = _imported(module, f"{where}={name!r}")
    file = found.__file__ or ""
    if not hasattr(found, attribute):
        near = errors.nearest(attribute, [one for one in vars(found) if not one.startswith("_")], label="it has")
        raise errors.UserError(f"{where}={name!r}: {file or module} has no {attribute!r}{near}")
    digest = hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest() if file else ""
    return Own(name, getattr(found, attribute), digest, file, where)


def _imported(module: str, where: str) -> ModuleType:
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # `python -m` has it there, the console script has not
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name and (module == e.name or module.startswith(f"{e.name}.")):
            raise errors.UserError(
                f"{where} cannot be imported: there is no module {e.name} on the Python path; start the command in its"
                " folder, or set PYTHONPATH"
            ) from e
        raise errors.UserError(f"{where} cannot be imported: {_told(e)}") from e
    except Exception as e:
        raise errors.UserError(f"{where} cannot be imported: {_told(e)}") from e


def _told(error: Exception, file: str = "") -> str:
    """ "FILE:LINE: KeyError: 'x'": the last line of `file` that was run, or else of any file but Python's import."""
    what = f"{type(error).__name__}: {str(error) or 'without a message'}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith("<frozen ")]
    at = next((one for one in reversed(frames) if one.filename == file), frames[-1])
    return f"{at.filename}:{at.lineno}: {what}"
