"""The flag --config: a config file, and its settings changed by --config.a.b=value.

Beyond what ml_collections' flag does, a member of a group that the file lacks is made with its defaults
(--config.data.sources.mine.path=FILE is a new source "mine"), and of a wrong name the nearest ones are told, with
their sections.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
import dataclasses
import difflib
import re
import sys
from typing import Any

from absl import flags
from ml_collections import config_dict
from ml_collections.config_flags import config_flags

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import ranges
from vlguard_jax import shipped

flags.disclaim_key_flags()  # the flag belongs to the program that asks for it

_CHANGE = re.compile(r"--?(?:no)?config\.([^=]*)")


def define(
    command: str,
    text: str,
    values: flags.FlagValues = flags.FLAGS,
    argv: list[str] | None = None,
) -> flags.FlagHolder[Any]:
    """--config of a command, which takes NAME, FILE, NAME:argument or FILE:argument (`shipped.config`), and with it a
    flag for each setting, --config.a.b. text: for --help. values: the program's flags. argv: the command line, sys.argv
    for None."""
    holder = config_flags.DEFINE_config_file("config", help_string=text, flag_values=values, sys_argv=argv)
    values["config"].parser = _Parser(command, argv)
    return holder


def unless_given(path: str, argv: list[str]) -> None:
    """Put --config=path in front of a command line, `argv` with the program's name, that has no --config: a default of
    the flag would be read while flags are defined, where nothing turns an error into a line."""
    words = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    if not any(re.match(r"--?config(=|$)", word) for word in words):
        argv.insert(1, f"--config={path}")


class _Parser(config_flags.ConfigFileFlagParser):
    """Reads the config of a file or of a name, and makes room for what the command line changes in it."""

    def __init__(self, command: str, argv: list[str] | None):
        super().__init__("config")
        self._command, self._argv = command, argv

    def parse(self, path: str) -> Any:
        """See the class. Raises UserError: there is no such file, name or setting."""
        values = super().parse(shipped.config(path, self._command))
        argv = flags.FLAGS.read_flags_from_files(sys.argv if self._argv is None else self._argv, force_gnu=False)
        make_room_for(values, argv)
        return values


def make_room_for(values: Any, argv: Iterable[str]) -> None:
    """As `make_room`, for each setting that a command line changes.

    Raises:
      UserError: as `make_room`; or `values` are of a file that cannot be read.
    """
    for changed in filter(None, map(_CHANGE.match, argv)):
        with config.reading():
            values.keys()
        make_room(values, changed[1])


def make_room(values: config_dict.ConfigDict, path: str) -> None:
    """Add the group's member that the dotted `path` goes through, if it is not in `values`.

    Raises:
      UserError: there is no such setting.
    """
    found: Any = values
    parts = path.split(".")
    for i, part in enumerate(parts):
        name = part.partition("[")[0]
        if not isinstance(found, config_dict.ConfigDict):
            return  # the flag says that this is a value
        if name not in found:
            member = _groups().get(".".join(parts[:i]))
            of_section = dataclasses.is_dataclass(member)
            if not name or member is None or of_section == (i == len(parts) - 1):
                raise errors.UserError(f"config.{path} is not a setting{near(path, list(_paths(values)))}")
            with found.unlocked():
                found[name] = config.to_config_dict(member()) if of_section else member()
            found.lock()
        found = found[name]


def near(path: str, known: Collection[str]) -> str:
    """What to say behind a wrong dotted `path`: the setting of that name in the section of nearly that name, else in
    another; or one whose name is nearly that, begins with it or has its initials, of the same section first; else what
    the section has."""
    section, _, name = path[: errors.LONGEST_NAME].rpartition(".")
    here = [one for one in known if one.rpartition(".")[0] == section]
    having = [one.rpartition(".")[0] for one in known if _last(one) == name]
    meant = [f"{one}.{name}" for one in difflib.get_close_matches(section, having, n=1, cutoff=0.6)]
    for found in (_named(name, meant), _named(name, known), _alike(name, here), _alike(name, known)):
        if found:
            return f"; did you mean config.{found}?"
    if not here:
        return near(section, known) if section else ""
    return errors.nearest("", [_last(one) for one in here], label=f"config{section and '.'}{section} has")


def _named(name: str, known: Iterable[str]) -> str:
    return next((one for one in known if _last(one) == name), "")


def _alike(name: str, known: Collection[str]) -> str:
    initials = (one for one in known if "".join(word[:1] for word in _last(one).split("_")) == name)
    if found := next(initials, ""):
        return found
    if close := difflib.get_close_matches(name, list(map(_last, known)), n=1, cutoff=0.6):
        return _named(close[0], known)
    return next((one for one in known if name and _last(one).startswith(name)), "")


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _paths(values: config_dict.ConfigDict, where: str = "") -> Iterator[str]:
    """The dotted paths of all sections and settings."""
    for name, value in values.items():
        yield f"{where}{name}"
        if isinstance(value, config_dict.ConfigDict):
            yield from _paths(value, f"{where}{name}.")


def _groups() -> dict[str, type]:
    """What the members of each group are, by the group's path, in trainings and evaluations."""
    return ranges.groups(config.TrainConfig) | ranges.groups(config.EvalConfig)
