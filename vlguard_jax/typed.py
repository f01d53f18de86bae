"""Values from JSON files, checked against declared types.

A type is Any, str, bool, None, `Annotated[int or float, ranges.Range]`, `Annotated[str, A_CHECK]`, a union of these,
`list[...]`, a tuple (of fixed length, or `tuple[..., ...]`), `Mapping[str, ...]`, a dataclass (its fields and no
others; only a `later` one may be missing), or a TypedDict (other fields are ignored).
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import datetime
import functools
import math
import types
import typing
from typing import Annotated, Any, TypeVar, cast

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import ranges


@dataclasses.dataclass(frozen=True)
class Longest:
    """A text of at most `most` characters."""

    most: int

    def __call__(self, value: str) -> str:
        return "" if len(value) <= self.most else f"a text of at most {self.most:,} characters"


def _moment(value: str) -> str:
    try:
        known = datetime.datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        known = False
    return "" if known else "a date and time with its zone, like 2026-01-31T12:00:00+00:00"


Name = Annotated[str, Longest(limits.TEXT)]
Time = Annotated[str, _moment]
Count = Annotated[int, ranges.Range(0, 1 << 53)]
Seed = Annotated[int, ranges.Range(-(1 << 63), 1 << 64)]
Number = Annotated[float, ranges.Range(-1e300, 1e300)]
NotFinite = Annotated[float, lambda value: "" if not math.isfinite(value) else "NaN or Infinity"]
Fraction = Annotated[float, ranges.Range(0, 1)]
_WORDS = {str: "a text", bool: "true or false", type(None): "null", float: "a number"}


T = TypeVar("T")
_LATER = "later"


def later(default: Any) -> Any:
    """A dataclass field that files written before it was added lack; `default` is how things were then."""
    return dataclasses.field(default=default, metadata={_LATER: True})


def make(kind: type[T], value: Any, where: str, way: str = "") -> T:
    """`value` as `kind`: parts declared as a dataclass or a tuple become one.

    Raises:
      UserError: as `check`.
    """
    check(kind, value, where, way)
    return cast(T, _made(kind, value))


def check(kind: Any, value: Any, where: str, way: str = "") -> None:
    """Check that `value` is of the type `kind`.

    Raises:
      UserError: it is not; the message starts with `where`, names the part, and ends with `way`, what to do.
    """
    if wrong := _wrong(kind, value):
        path, found, wanted = wrong
        told = f"{found} must be {wanted}" if wanted else found
        raise errors.UserError(f"{where}: {f'{path}: ' if path else ''}{told}{f'; {way}' if way else ''}")


def _made(kind: Any, value: Any) -> Any:
    """`value`, of the type `kind`, with its dataclasses and tuples."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _made(next(part for part in parts if _wrong(part, value) is None), value)
    if origin in (list, tuple):
        return origin(_made(part, one) for part, one in zip(_members(kind, value), value, strict=True))
    if dataclasses.is_dataclass(kind):
        hints, _ = _hints(cast(type, kind))
        return cast(type, kind)(**{name: _made(hint, value[name]) for name, hint in hints.items() if name in value})
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: _made(parts[1], part) for name, part in value.items()}
    return value


def _members(kind: Any, value: list[Any]) -> tuple[Any, ...]:
    """The type of every member of a list or tuple `value` of the type `kind`."""
    parts = typing.get_args(kind)
    return parts if _fixed(kind) else parts[:1] * len(value)


def _fixed(kind: Any) -> bool:
    """Whether the type is a tuple of fixed length."""
    return typing.get_origin(kind) is tuple and typing.get_args(kind)[-1] is not Ellipsis


def _wrong(kind: Any, value: Any) -> tuple[str, str, str] | None:
    """(path of the wrong part, what it is, what it must be); None if nothing is wrong."""
    if kind is Any:
        return None
    if kind in _WORDS:
        return None if type(value) is kind else _other(value, _WORDS[kind])
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _annotated(parts[0], parts[1], value)
    if origin in (typing.Union, types.UnionType):
        return _union(parts, value)
    if origin is typing.NotRequired:
        return _wrong(parts[0], value)
    if origin in (list, tuple):
        if not isinstance(value, list) or (_fixed(kind) and len(value) != len(parts)):
            return _other(value, f"a list of {len(parts)}" if _fixed(kind) else "a list")
        kinds = _members(kind, value)
        return next(
            (_below(f"[{i}]", wrong) for i, part in enumerate(value) if (wrong := _wrong(kinds[i], part))), None
        )
    if not isinstance(value, Mapping):
        return _other(value, "an object")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return next(
            (_below(f"[{errors.short(k)}]", wrong) for k, part in value.items() if (wrong := _wrong(parts[1], part))),
            None,
        )
    return _fields(kind, value)


def _annotated(kind: Any, rule: Any, value: Any) -> tuple[str, str, str] | None:
    if isinstance(rule, ranges.Range):
        number = ranges.Rule(kind, rule)
        return None if number.fits(value) else _other(value, str(number))
    if wrong := _wrong(kind, value):
        return wrong
    wanted = rule(value)
    return _other(value, wanted) if wanted else None


def _union(kinds: tuple[Any, ...], value: Any) -> tuple[str, str, str] | None:
    found = []
    for kind in kinds:
        wrong = _wrong(kind, value)
        if wrong is None:
            return None
        found.append(wrong)
    deep = [wrong for wrong in found if wrong[0]]
    return deep[0] if deep else _other(value, " or ".join(wanted for _, _, wanted in found if wanted))


def _fields(kind: type, value: Mapping[str, Any]) -> tuple[str, str, str] | None:
    hints, optional = _hints(kind)
    for name, hint in hints.items():
        if name not in value:
            if name not in optional:
                return "", f"the field {name!r} is missing", ""
        elif wrong := _wrong(hint, value[name]):
            return _below(f".{name}", wrong)
    more = value.keys() - hints.keys() if dataclasses.is_dataclass(kind) else ()
    return ("", f"the field {errors.short(min(more))} is unknown", "") if more else None


@functools.cache
def _hints(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """(the type of every field, names of those that may be missing)."""
    hints = typing.get_type_hints(kind, include_extras=True)
    optional = {name for name, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired}
    if dataclasses.is_dataclass(kind):
        optional |= {field.name for field in dataclasses.fields(kind) if _LATER in field.metadata}
    return hints, frozenset(optional)


def _below(step: str, wrong: tuple[str, str, str]) -> tuple[str, str, str]:
    return f"{step}{wrong[0]}", wrong[1], wrong[2]


def _other(value: Any, wanted: str) -> tuple[str, str, str]:
    return "", errors.short(value), wanted
