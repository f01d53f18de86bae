"""What the settings of a frozen dataclass may be, read from its annotations, and plain values turned into such a
dataclass.

A leaf is `Annotated[int, Range(0, 9)]`, `Annotated[float, Range(0, 1)]`, `Literal["a", "b"]`, `bool` or `str`; sections
are dataclasses, groups are `Mapping[str, LEAF or SECTION]`, lists are `tuple[LEAF, ...]`.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import typing
from typing import Any, TypeVar

from vlguard_jax import errors
from vlguard_jax import limits

T = TypeVar("T")
_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, both finite and both among them; `also`: single values outside that have a
    meaning of their own."""

    least: int | float
    most: int | float
    also: tuple[int, ...] = ()

    def __contains__(self, value: int | float) -> bool:
        return self.least <= value <= self.most or value in self.also  # NaN compares as false

    def __str__(self) -> str:
        return " or ".join((f"from {self.least} to {self.most}", *map(str, self.also)))


@dataclasses.dataclass(frozen=True)
class Rule:
    """What one setting may be: its type, and the range of a number or the choices of a text (None: any)."""

    kind: type[Any]
    range: Range | None = None
    choices: tuple[str, ...] | None = None

    def __str__(self) -> str:
        if self.choices:
            return " or ".join(map(repr, self.choices))
        return _WORDS[self.kind] + (f" {self.range}" if self.range else "")

    def fits(self, value: Any) -> bool:
        """Whether `value` may stand here. True and False are no numbers; a whole number will do for a float."""
        if self.choices is not None:
            return isinstance(value, str) and value in self.choices
        of_kind = type(value) is self.kind or (self.kind is float and type(value) is int)
        return of_kind and (self.range is None or value in self.range)

    def checked(self, value: Any, name: str) -> Any:
        """`value`, a whole number as float where one is wanted.

        Raises:
          UserError: it is not what `name` may be.
        """
        if not self.fits(value):
            if self.choices is None:
                raise errors.UserError(f"{name}={errors.short(value)} must be {self}")
            near = errors.nearest(value if isinstance(value, str) else "", self.choices)
            raise errors.UserError(f"{name}={errors.short(value)} is unknown{near}")
        if isinstance(value, str):
            _check_text(value, name)
        return float(value) if self.kind is float else value


def _check_text(value: str, name: str) -> None:
    if len(value) > limits.TEXT:
        raise errors.UserError(f"{name}={errors.short(value)} has {len(value):,} characters; at most {limits.TEXT:,}")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise errors.UserError(
            f"{name}={errors.short(value)} holds a character that no text has (NUL, or half of a surrogate pair)"
        )


def rules(kind: type, where: str = "") -> dict[str, Rule]:
    """The rule of every leaf by its dotted path; `*` stands for the name of a group's member, `[]` for the place in a
    list.

    Raises:
      TypeError: an annotation is none of those that this module knows, or a number has no range.
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


def build(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """`kind` from plain values; what they lack has its default. `where`: the section's path, for messages.

    Raises:
      UserError: an unknown name (the nearest known one is named), or a value that its rule does not allow.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in values:
        if key not in hints:
            raise errors.UserError(f"{_setting(where, key)} is not a setting{errors.nearest(str(key), hints)}")
    return kind(**{key: _convert(hints[key], value, _join(where, key)) for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) or _is_mapping(origin):
        if not isinstance(value, Mapping):
            raise errors.UserError(f"config.{where} must be a section of settings, not {errors.short(value)}")
        if dataclasses.is_dataclass(hint):
            return build(typing.cast(type, hint), value, where)
        member = typing.get_args(hint)[1]
        return {key: _convert(member, part, _join(where, _named(key, where))) for key, part in value.items()}
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise errors.UserError(f"config.{where} must be a list, not {errors.short(value)}")
        return tuple(_convert(typing.get_args(hint)[0], part, f"{where}[{i}]") for i, part in enumerate(value))
    return _rule(hint, where).checked(value, f"config.{where}")


def _named(key: Any, where: str) -> str:
    """The name of a group's member."""
    if not isinstance(key, str) or not key:
        raise errors.UserError(f"config.{where}: {errors.short(key)} cannot be a name")
    _check_text(key, f"config.{where}")
    return key


def _rule(hint: Any, where: str) -> Rule:
    if typing.get_origin(hint) is typing.Literal:
        return Rule(str, choices=typing.get_args(hint))
    limit = None
    if typing.get_origin(hint) is typing.Annotated:
        hint, limit = typing.get_args(hint)
    if hint not in _WORDS or (limit is not None) != (hint in (int, float)):
        raise TypeError(f"{where}: {hint} with {limit}; numbers have a Range, other settings none")
    return Rule(hint, limit)


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _setting(where: str, key: Any) -> str:
    return (
        f"config.{_join(where, key)}"
        if isinstance(key, str) and key.isidentifier()
        else f"config.{where}: {errors.short(key)}"
    )


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)
