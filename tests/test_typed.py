"""Values out of JSON, checked against declared types: what passes, and the line that a wrong one gets."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Any, NotRequired, TypedDict

import pytest

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import ranges
from vlguard_jax import typed


@dataclasses.dataclass(frozen=True)
class Point:
    x: typed.Number
    name: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    points: tuple[Point, ...]
    size: tuple[typed.Number, typed.Number]
    centre: Point | None
    notes: Mapping[str, list[Point]]


class Line(TypedDict):
    step: typed.Count
    note: NotRequired[str]


SMALL = Annotated[int, ranges.Range(1, 3)]

RIGHT: list[tuple[Any, Any]] = [
    (str, ""),
    (bool, False),
    (None | str, None),
    (Mapping[str, Any], {"a": [None]}),
    (SMALL, 3),
    (typed.Number, 1),
    (typed.Number, -1e300),
    (typed.Seed, -(1 << 63)),
    (typed.Number | typed.NotFinite, float("nan")),
    (typed.Name, "x" * limits.TEXT),
    (typed.Time, "2026-01-31T12:00:00+00:00"),
    (list[str], []),
    (tuple[str, SMALL], ["a", 1]),
    (tuple[SMALL, ...], []),
    (tuple[SMALL, ...], [1, 2, 3]),
    (Mapping[str, list[bool]], {"a": [True]}),
    (Point, {"x": 1.5, "name": None}),
    (Line, {"step": 0, "more": [1]}),
    (list[Line | Point], [{"step": 1, "note": "n"}, {"x": 0, "name": "n"}]),
]
WRONG: list[tuple[Any, Any, str]] = [
    (str, 1, "1 must be a text"),
    (bool, 1, "1 must be true or false"),
    (SMALL, 4, "4 must be "),
    (SMALL, True, "True must be "),
    (SMALL, 1.5, "1.5 must be "),
    (SMALL, "1", "'1' must be "),
    (typed.Number, float("inf"), "inf must be a number"),
    (typed.Number, 10**400, " must be a number"),
    (typed.Number | typed.NotFinite, "nan", "'nan' must be a number"),
    (typed.Count, -1, "-1 must be "),
    (typed.Name, "x" * (limits.TEXT + 1), f"must be a text of at most {limits.TEXT:,} characters"),
    (typed.Time, "2026-01-31T12:00:00", "must be a date and time with its zone"),
    (typed.Time, "tomorrow", "'tomorrow' must be a date and time with its zone"),
    (str | None, [], "[] must be a text or null"),
    (list[str], {"a": 1}, "{'a': 1} must be a list"),
    (list[str], ["a", 1], "[1]: 1 must be a text"),
    (tuple[str, SMALL], ["a"], "['a'] must be a list of 2"),
    (tuple[str, SMALL], ["a", 0], "[1]: 0 must be "),
    (tuple[SMALL, ...], {}, "{} must be a list"),
    (tuple[SMALL, ...], [1, 2, 0], "[2]: 0 must be "),
    (Mapping[str, bool], [], "[] must be an object"),
    (Mapping[str, bool], {"a": 1}, "['a']: 1 must be true or false"),
    (Point, {"x": 1}, "the field 'name' is missing"),
    (Point, {"x": 1, "name": "n", "y": 2}, "the field 'y' is unknown"),
    (Point, {"x": 1, "name": 2}, ".name: 2 must be a text or null"),
    (Line, {"step": 1, "note": None}, ".note: None must be a text"),
    (list[Point] | None, [{"x": None, "name": None}], "[0].x: None must be a number"),
]


@pytest.mark.parametrize(("kind", "value"), RIGHT)
def test_what_is_of_the_type_passes(kind: Any, value: Any) -> None:
    typed.check(kind, value, "file")


@pytest.mark.parametrize(("kind", "value", "words"), WRONG)
def test_what_is_not_is_named_in_one_line(kind: Any, value: Any, words: str) -> None:
    with pytest.raises(errors.UserError) as raised:
        typed.check(kind, value, "file", "write it again")
    message = str(raised.value)
    assert (
        message.startswith("file: ")
        and message.endswith("; write it again")
        and words in message
        and message.isprintable()
    )


def test_the_way_out_may_be_missing() -> None:
    with pytest.raises(errors.UserError, match=r"^file: 1 must be a text$"):
        typed.check(str, 1, "file")


def test_dataclasses_and_tuples_are_made_at_every_depth() -> None:
    one, other = {"x": 1.5, "name": None}, {"x": -2, "name": "n"}
    values = {"points": [one, other], "size": [1, 2], "centre": one, "notes": {"a": [other], "b": []}}
    first, second = Point(1.5, None), Point(-2, "n")
    made = typed.make(Shape, values, "file")
    assert made == Shape(points=(first, second), size=(1, 2), centre=first, notes={"a": [second], "b": []})
    assert typed.make(Shape, values | {"centre": None}, "file").centre is None
    assert typed.make(Line, {"step": 1, "more": 2}, "file") == {"step": 1, "more": 2}


def test_a_later_field_may_be_missing() -> None:
    """One with a default, too, may not, and a later one has its type."""

    @dataclasses.dataclass(frozen=True)
    class Grown:
        x: typed.Count
        y: typed.Count = 3
        z: typed.Count = typed.later(4)

    assert typed.make(Grown, {"x": 1, "y": 2}, "file") == Grown(1, 2, 4)
    assert typed.make(Grown, {"x": 1, "y": 2, "z": 5}, "file") == Grown(1, 2, 5)
    for values, words in (({"x": 1}, "'y' is missing"), ({"x": 1, "y": 2, "z": "5"}, r"\.z: '5' must be a whole")):
        with pytest.raises(errors.UserError, match=words):
            typed.make(Grown, values, "file")


def test_what_is_not_of_the_type_is_not_made() -> None:
    with pytest.raises(errors.UserError, match=r"^file: \.x: None must be a number from .*; write it again$"):
        typed.make(Point, {"x": None, "name": None}, "file", "write it again")
