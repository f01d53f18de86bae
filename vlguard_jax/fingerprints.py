"""Hashes of settings and sizes that do not change when a setting is added: fields at their defaults do not enter."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import hashlib
import json
from typing import Any


def of(*values: Any) -> str:
    """sha256 over JSON values, dataclasses and mappings of them."""
    return hashlib.sha256(json.dumps([decisive(value) for value in values], sort_keys=True).encode()).hexdigest()


def decisive(value: Any) -> Any:
    """A value ready for JSON; a dataclass becomes its fields that are not at their defaults, by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {f.name: decisive(getattr(value, f.name)) for f in fields if getattr(value, f.name) != _default(f)}
    if isinstance(value, Mapping):
        return {key: decisive(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [decisive(one) for one in value]
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    """A field's default; `MISSING`, which equals nothing, without one."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
