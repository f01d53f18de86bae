"""Reads the allowed values of a frozen dataclass's settings from its annotations, and builds the dataclass from plain
values.

A leaf is `Annotated[int, Range(0, 9)]`, `Annotated[float, Range(0, 1)]`, `Literal["a", "b"]`, `bool`, `str`,
`Annotated[str, LONGEST]` or a union of plain types (any value of one of them); sections are dataclasses, perhaps
`SECTION | None`, groups are `Mapping[str, LEAF or SECTION]`, lists are `tuple[LEAF or SECTION, ...]`.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import types
import typing
from typing import Any, TypeVar

from vlguard_jax import errors
from vlguard_jax import limits

T = TypeVar("T")
_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, both finite and inclusive; `also`: single values outside, with a special
    meaning."""

    least: int | float
    most: int | float
    also: tuple[int, ...] = ()

    def __contains__(self, value: int | float) -> bool:
        return self.least <= value <= self.most or value in self.also  # NaN compares as false

    def __str__(self) -> str:
        return " or ".join((f"from {self.least} to {self.most}", *map(str, self.also)))


@dataclasses.dataclass(frozen=True)
class Rule:
    """Allowed values of one setting: its type, and the range of a number, or the choices of a text (None: any) of at
    most `longest` characters."""

    kind: type[Any]
    range: Range | None = None
    choices: tuple[str, ...] | None = None
    longest: int = limits.TEXT

    def __str__(self) -> str:
        if self.choices:
            return " or ".join(map(repr, self.choices))
        return _WORDS[self.kind] + (f" {self.range}" if self.range else "")

    def fits(self, value: Any) -> bool:
        """Whether `value` is allowed. True and False are not numbers; an integer is accepted as a float."""
        if self.choices is not None:
            return isinstance(value, str) and value in self.choices
        of_kind = type(value) is self.kind or (self.kind is float and type(value) is int)
        return of_kind and (self.range is None or value in self.range)

    def checked(self, value: Any, name: str) -> Any:
        """`value`, with an integer converted where a float is wanted.

        Raises:
          UserError: it is not allowed for `name`.
        """
        if not self.fits(value):
            if self.choices is None:
                raise errors.UserError(f"{name}={errors.short(value)} must be {self}")
            near = errors.nearest(value if isinstance(value, str) else "", self.choices)
            raise errors.UserError(f"{name}={errors.short(value)} is unknown{near}")
        if isinstance(value, str):
            _check_text(value, name, self.longest)
        return float(value) if self.kind is float else value


def _check_text(value: str, name: str, longest: int = limits.TEXT) -> None:
    if len(value) > longest:
        raise errors.UserError(f"{name}={errors.short(value)} has {len(value):,} characters; at most {longest:,}")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise errors.UserError(
            f"{name}={errors.short(value)} holds a character that no text has (NUL, or half of a surrogate pair)"
        )


def rules(kind: type, where: str = "") -> dict[str, Rule]:
    """The rule of every leaf by its dotted path; `*` stands for the name of a group's member, `[]` for an index in a
    list.

    Raises:
      TypeError: an annotation that this module does not know, or a number without a range.
    """
    found: dict[str, Rule] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        path = _join(where, name)
        while (origin := typing.get_origin(hint)) is tuple or _is_mapping(origin):
            path, hint = (
                (f"{path}[]", typing.get_args(hint)[0]) if origin is tuple else (f"{path}.*", typing.get_args(hint)[1])
            )
        found |= rules(hint, path) if dataclasses.is_dataclass(hint) else {path: _rule(hint, path)}  # type: ignore[arg-type]
    return found


def groups(kind: type, where: str = "") -> dict[str, type]:
    """What each group's members are, a dataclass or a plain type, by the group's dotted path; of groups in sections,
    not of those in other groups."""
    found: dict[str, type] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if _is_mapping(typing.get_origin(hint)):
            member: Any = typing.get_args(hint)[1]
            of_section = dataclasses.is_dataclass(member)
            found[_join(where, name)] = typing.cast(type, member) if of_section else _rule(member, name).kind
        elif dataclasses.is_dataclass(hint):
            found |= groups(typing.cast(type, hint), _join(where, name))
    return found


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """`kind` from plain values; missing ones have their defaults.

    Args:
      where: name of the section in messages: "config.data", or "FILE:" for a whole file.

    Raises:
      UserError: an unknown name (the nearest known one is named), a missing one without a default, or a value that its
        rule does not allow.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in values:
        if key not in hints:
            raise errors.UserError(f"{_setting(where, key)} is not a setting{errors.nearest(str(key), hints)}")
    for field in dataclasses.fields(typing.cast(Any, kind)):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in values:
            raise errors.UserError(f"{_join(where, field.name)} is missing")
    return kind(**{key: convert(hints[key], value, _join(where, key)) for key, value in values.items()})


def convert(hint: Any, value: Any, name: str) -> Any:
    """A plain value converted to the type of the annotation `hint`.

    Raises:
      UserError: it is not allowed for `name`.
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if len(kinds) == 1:
            return convert(kinds[0], value, name)
        if type(value) not in kinds:
            wanted = " or ".join(_WORDS[kind] for kind in kinds)
            raise errors.UserError(f"{name}={errors.short(value)} must be {wanted}")
        return value
    if dataclasses.is_dataclass(hint) or _is_mapping(origin):
        if not isinstance(value, Mapping):
            raise errors.UserError(f"{name} must be a section of settings, not {errors.short(value)}")
        if dataclasses.is_dataclass(hint):
            return build(typing.cast(type, hint), value, name)
        member = typing.get_args(hint)[1]
        return {key: convert(member, part, _join(name, _named(key, name))) for key, part in value.items()}
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise errors.UserError(f"{name} must be a list, not {errors.short(value)}")
        return tuple(convert(typing.get_args(hint)[0], part, f"{name}[{i}]") for i, part in enumerate(value))
    return _rule(hint, name).checked(value, name)


def _named(key: Any, where: str) -> str:
    """The name of a group's member."""
    if not isinstance(key, str) or not key:
        raise errors.UserError(f"{where}: {errors.short(key)} cannot be a name")
    _check_text(key, where)
    return key


def _rule(hint: Any, where: str) -> Rule:
    if typing.get_origin(hint) is typing.Literal:
        return Rule(str, choices=typing.get_args(hint))
    limit = None
    if typing.get_origin(hint) is typing.Annotated:
        hint, limit = typing.get_args(hint)
        if hint is str:
            return Rule(str, longest=limit)
    if hint not in _WORDS or (limit is not None) != (hint in (int, float)):
        raise TypeError(f"{where}: {hint} with {limit}; numbers have a Range, other settings none")
    return Rule(hint, limit)


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _setting(where: str, key: Any) -> str:
    if isinstance(key, str) and key.isidentifier():
        return _join(where, key)
    return f"{where.removesuffix(':')}: {errors.short(key)}"


def _join(where: str, key: str) -> str:
    if not where:
        return str(key)
    return f"{where} {key}" if where.endswith(":") else f"{where}.{key}"
