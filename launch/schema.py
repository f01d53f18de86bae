"""Checks manifests against the parts of their published schemas that are used here (schemas/*.json, each with its
source).

Knows the words of JSON Schema that those files use: type, properties, required, additionalProperties, items, enum,
const, pattern, minItems, maxLength, minimum, maximum. Any other word in a schema is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import functools
import json
import pathlib
import re
from typing import Any

from vlguard_jax import errors

FOLDER = pathlib.Path(__file__).with_name("schemas")
SCHEMAS = {"gke": "jobset", "skypilot": "skypilot"}
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
COMMENTS = {"$schema", "title", "description"}
LEAST = {"minItems": len, "minimum": lambda value: value}
MOST = {"maxLength": len, "maximum": lambda value: value}


@functools.cache
def load(name: str) -> Mapping[str, Any]:
    """schemas/NAME.json."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def check(target: str, name: str, text: str) -> None:
    """Check one rendered file, if its target has a schema.

    Raises:
      UserError: the first thing that does not fit, with its place in the file.
    """
    if target not in SCHEMAS or not name.endswith(".yaml"):
        return
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise errors.UserError(f"{name}: not YAML: {' '.join(str(e).split())}") from e
    for problem in problems(value, load(SCHEMAS[target])):
        raise errors.UserError(f"{name}: {problem}; a value in the launch file or in env does not fit")


def problems(value: Any, schema: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What in `value` does not fit `schema`, each with its place, as "spec.replicas: ..."."""
    place = where or "top"
    kinds = schema.get("type")
    if kinds and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{place}: {value!r} is not of type {kinds}"
        return
    for word, limit in schema.items():
        if word in ("type", "properties", "additionalProperties") or word in COMMENTS:
            continue
        if word == "items":
            for i, item in enumerate(value):
                yield from problems(item, limit, f"{where}[{i}]")
        elif (problem := _broken(word, limit, value)) is not None:
            yield f"{place}: {problem}"
    if isinstance(value, dict):
        yield from _inside(value, schema, where)


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))


def _broken(word: str, limit: Any, value: Any) -> str | None:
    if word == "required":
        missing = [key for key in limit if key not in value]
        return f"{missing[0]!r} is missing" if missing else None
    if word == "enum":
        return None if value in limit else f"{value!r} is none of {limit}"
    if word == "const":
        return None if value == limit else f"{value!r} is not {limit!r}"
    if word == "pattern":
        return None if re.search(limit, value) else f"{value!r} does not match {limit}"
    if word in LEAST:
        return None if LEAST[word](value) >= limit else f"{value!r} is below {word} {limit}"
    if word in MOST:
        return None if MOST[word](value) <= limit else f"{value!r} is above {word} {limit}"
    raise ValueError(f"the schema has {word!r}, which is not known here")


def _inside(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        inner = f"{where}.{key}" if where else str(key)
        if key in known:
            yield from problems(item, known[key], inner)
        elif others is False:
            yield f"{inner}: not known here{errors.nearest(str(key), known)}"
        elif isinstance(others, Mapping):
            yield from problems(item, others, inner)
