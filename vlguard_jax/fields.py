"""Typed values from the JSON files of a model: a missing or null value has its default, every other value is checked.

A size is an integer within a limit, a number is finite and within a range, a flag is only true or false.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import ranges


@dataclasses.dataclass(frozen=True)
class Fields:
    """An object of a JSON file.

    Every reader raises UserError, which names the file and the key, if the value has another type or is out of range,
    or is missing without a default.

    Attributes:
      values: the object, as parsed.
      where: the file, for messages.
    """

    values: Mapping[str, Any]
    where: str

    def size(self, key: str, default: int | None = None, *, most: int = limits.MODEL_SIZE) -> int:
        """An integer from 1 to `most`."""
        value = self._found(key, default)
        if not _number(int, 1, most).fits(value):
            raise self.wrong(key, f"a whole number from 1 to {most:,}")
        return value

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        least: float = limits.SMALLEST,
        most: float = limits.LARGEST,
        of: str = "",
    ) -> float:
        """A number from `least` to `most`; `of`: what it is missing in, for the message."""
        value = self._found(key, default, of)
        if not _number(float, least, most).fits(value):
            raise self.wrong(key, f"a number from {least:g} to {most:g}")
        return float(value)

    def numbers(self, key: str, default: tuple[float, ...], *, least: float, most: float) -> tuple[float, ...]:
        """As many numbers from `least` to `most` as `default` has."""
        value = self._found(key, default)
        fits = _number(float, least, most).fits
        if not isinstance(value, (list, tuple)) or len(value) != len(default) or not all(map(fits, value)):
            raise self.wrong(key, f"{len(default)} numbers from {least:g} to {most:g}")
        return tuple(map(float, value))

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self._found(key, default)
        if type(value) is not bool:
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, default: str = "") -> str:
        """A text of at most limits.NAME characters, without control characters."""
        value = self._found(key, default)
        if not isinstance(value, str) or len(value) > limits.NAME or not (value == "" or value.isprintable()):
            raise self.wrong(key, f"a printable text of at most {limits.NAME:,} characters")
        return value

    def choice(self, key: str, *known: str) -> str:
        """One of these texts, without a default."""
        self.only(**{key: known})
        value: str = self._found(key, None)
        return value

    def part(self, key: str) -> Fields:
        """The object under `key`; empty if it is missing."""
        value = self._found(key, {})
        if not isinstance(value, Mapping):
            raise self.wrong(key, "an object")
        return Fields(value, self.where)

    def only(self, **allowed: tuple[Any, ...]) -> None:
        """Check that each of these keys is missing or has one of these values, of exactly its type; None allows
        null."""
        for key, values in allowed.items():
            value = self.values.get(key, values[0])
            if not any(type(value) is type(one) and value == one for one in values):
                supported = " or ".join(repr(v) for v in values)
                raise errors.UserError(f"{self.where}: {key}={errors.short(value)} is not supported (only {supported})")

    def wrong(self, key: str, wanted: str) -> errors.UserError:
        """The error to raise if the value of `key` is not `wanted`."""
        return errors.UserError(
            f"{self.where}: {key}={errors.short(self.values.get(key))} must be {wanted}: correct it, or get the"
            " file again"
        )

    def _found(self, key: str, default: Any, of: str = "") -> Any:
        value = self.values.get(key)
        if value is None and default is None:
            raise errors.UserError(f"{self.where}: {key} is missing{of and f' in {of}'}")
        return default if value is None else value


def _number(kind: type[Any], least: int | float, most: int | float) -> ranges.Rule:
    return ranges.Rule(kind, ranges.Range(least, most))
