"""Launches whose manifests fit the parts of their published schemas that are used (schemas/*.json, each with its
source)."""

from __future__ import annotations

from collections.abc import Mapping
import functools
import json
import pathlib
from typing import Any

import jsonschema
import yaml

from launch import jobs

FOLDER = pathlib.Path(__file__).with_name("schemas")
SCHEMAS = {"gke": "jobset", "skypilot": "skypilot"}


@functools.cache
def load(name: str) -> Mapping[str, Any]:
    """schemas/NAME.json."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def check(target: str, text: str) -> None:
    """Check one rendered manifest.

    Raises:
      jsonschema.ValidationError: what fits least, with its place in the manifest.
    """
    jsonschema.validate(yaml.safe_load(text), load(SCHEMAS[target]), jsonschema.Draft202012Validator)


def prepare(path: pathlib.Path, target: str) -> jobs.Launch:
    """As `jobs.prepare`; what it renders is checked, too."""
    launch = jobs.prepare(path, target)
    for name, text in launch.files.items():
        if target in SCHEMAS and name.endswith(".yaml"):
            check(target, text)
    return launch
