"""Every setting with its default, what is allowed, and what its comment says: read from the dataclasses that define it.

A comment behind a field, or on the lines directly above it, is its meaning; a class's docstring is that of a section.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import functools
import inspect
import io
import os
import sys
import tokenize
import typing
from typing import Any

from vlguard_jax import ranges


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting.

    path: dotted, below "config"; `*` stands for a name that the user chooses. default: as a config file would say it.
    """

    path: str
    rule: ranges.Rule
    default: Any
    meaning: str

    def __str__(self) -> str:
        told = f"config.{self.path} = {self.default!r}   {self.rule}"
        return told + (f"\n    {self.meaning}" if self.meaning else "")


def settings(kind: type) -> list[Setting]:
    """All settings of a config class, those of its sections included, in the order of the source."""
    rules = ranges.rules(kind)
    found = {path: (default, meaning) for path, default, meaning in _leaves(kind, "")}
    return [Setting(path, rule, *found[path]) for path, rule in rules.items()]


def sections(kind: type) -> dict[str, str]:
    """What the docstring of each section's class says first, by the section's path."""
    found: dict[str, str] = {}
    for _, path, hint in _fields(kind, ""):
        if dataclasses.is_dataclass(hint):
            told = inspect.getdoc(typing.cast(type, hint)) or ""
            found[path] = " ".join(told.partition("\n\n")[0].split())
            found |= {f"{path}.{name}": text for name, text in sections(typing.cast(type, hint)).items()}
    return found


def matching(known: list[Setting], words: list[str]) -> list[Setting]:
    """Those that hold every word in their path or meaning, whatever its case."""
    wanted = [word.lower() for word in words]
    return [one for one in known if all(word in f"{one.path} {one.meaning}".lower() for word in wanted)]


def _leaves(kind: type, where: str) -> Iterator[tuple[str, Any, str]]:
    """(path, default, meaning), by the same walk as `ranges.rules`."""
    meanings = _comments(kind)
    for field, path, hint in _fields(kind, where):
        if dataclasses.is_dataclass(hint):
            yield from _leaves(typing.cast(type, hint), path)
        else:
            yield path, _default(field), meanings.get(field.name, "")


def _fields(kind: type, where: str) -> Iterator[tuple[dataclasses.Field[Any], str, Any]]:
    """(field, path, type) of a class's own; of a list or a group the path and the type of its members."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(typing.cast(Any, kind)):
        hint, path = hints[field.name], f"{where}.{field.name}" if where else field.name
        while (origin := typing.get_origin(hint)) is tuple or _is_mapping(origin):
            path, hint = (
                (f"{path}[]", typing.get_args(hint)[0]) if origin is tuple else (f"{path}.*", typing.get_args(hint)[1])
            )
        yield field, path, hint


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


@functools.cache
def _comments(kind: type) -> dict[str, str]:
    """Field -> its comment in the source of the class."""
    found: dict[str, str] = {}
    above: list[str] = []
    field = ""
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(kind)).readline):
        text = token.string.removeprefix("#").strip()
        if token.type == tokenize.COMMENT and not token.line.strip().startswith("#"):
            found[field] = " ".join([found.get(field, ""), text]).strip()
        elif token.type == tokenize.COMMENT:
            above.append(text)
        elif token.type == tokenize.NAME and token.line.lstrip().startswith(f"{token.string}:"):
            field = token.string
            found[field], above = " ".join(above), []
    return {name: meaning for name, meaning in found.items() if meaning}


def origins(config: Any, base: Any, changed: Mapping[str, Any], file: str) -> Iterator[tuple[str, str, str]]:
    """(path, value, where it came from) of each setting of a resolved config.

    base: the config class's defaults. changed: what the command line set. file: the config file's name.
    """
    known, groups = dict(_flat(base)), [one for one in settings(type(base)) if "*" in one.path]
    for path, value in _flat(config):
        if path not in known and (member := _member(groups, path)):
            known[path] = member.default
        if path in changed or any(path.startswith(f"{one}.") for one in changed):
            source = "command line"
        else:
            source = "default" if path in known and known[path] == value else file
        yield path, repr(value), source


def _flat(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    parts: Mapping[str, Any] | None = None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        parts = value
    if parts:
        for name, part in parts.items():
            yield from _flat(part, f"{where}.{name}" if where else name)
    elif parts is None or where:
        yield where, dict(value) if parts is not None else value


def listed(lines: Iterable[object]) -> None:
    """Print lines, whose reader may leave before the last one, as `head` does."""
    try:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would try again at its end


def show(config: Any, flag: Any) -> None:
    """Print a resolved config: value, where it came from, what is allowed, what it means. flag: absl's of --config."""
    listed(_shown(config, flag))


def _shown(config: Any, flag: Any) -> Iterator[str]:
    from ml_collections import config_flags

    kind = type(config)
    known = {one.path: one for one in settings(kind)}
    file, changed = config_flags.get_config_filename(flag), config_flags.get_override_values(flag)
    for path, value, source in origins(config, kind(), changed, file):
        one = known.get(path) or _member(known.values(), path)
        told = f"   ({one.rule})" if one else ""
        yield f"config.{path} = {value}   [{source}]{told}"
        if one and one.meaning:
            yield f"    {one.meaning}"


def _member(known: Iterable[Setting], path: str) -> Setting | None:
    """The setting that `path` is in a group's member."""
    return next((one for one in known if _fits(one.path, path)), None)


def _fits(pattern: str, path: str) -> bool:
    ours, theirs = pattern.split("."), path.split(".")
    return len(ours) == len(theirs) and all(a in ("*", b, f"{b}[]") for a, b in zip(ours, theirs, strict=True))
