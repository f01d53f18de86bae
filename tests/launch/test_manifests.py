"""The check of manifests finds what is wrong in them, and says where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import re
from typing import Any

import jsonschema
import pytest
import yaml

from tests.launch import manifests
from tests.launch import renderings


def changed_key(text: str, keys: list[str], value) -> str:
    tree = yaml.safe_load(text)
    inner = tree
    for key in keys[:-1]:
        inner = inner[int(key) if key.isdigit() else key]
    inner[keys[-1]] = value
    return yaml.safe_dump(tree)


POD = "spec/replicatedJobs/0/template/spec/template/spec"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("kind", "Jobset", "'JobSet' was expected"),
        ("metadata/name", "Posthoc", "'Posthoc' does not match"),
        ("metadata/name", "x" * 41, "is too long"),
        ("spec/failurePolicy/maxRestarts", "3", "is not of type 'integer'"),
        ("spec/failurePolicy/maxRestarts", -1, "is less than the minimum of 0"),
        ("spec/failurePolicy/maxRestart", 1, "('maxRestart' was unexpected)"),
        ("spec/replicatedJobs/0/replicas", 0, "is less than the minimum of 1"),
        ("spec/replicatedJobs", [], "[] should be non-empty"),
        (f"{POD}/restartPolicy", "OnFailure", "'Never' was expected"),
        (f"{POD}/nodeSelector/cloud.google.com~gke-tpu-topology", 2, "is not of type 'string'"),
        (f"{POD}/containers/0/resources/limits/google.com~tpu", 4, "is not of type 'string'"),
        (f"{POD}/containers/0/env/0/value", 1, "['containers'][0]['env'][0]['value']"),
    ],
)
def test_jobset(path, value, message):
    text = renderings.of("gke")["posthoc-7b.yaml"]
    *parents, last = path.split("/")
    with pytest.raises(jsonschema.ValidationError, match=re.escape(message)):
        manifests.check("gke", changed_key(text, [*parents, last.replace("~", "/")], value))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["resources", "accelerators"], "tpu v5p", "does not match"),
        (["resources", "use_spot"], "yes", "is not of type 'boolean'"),
        (["resources", "job_recovery", "recover_on_exit_code"], [75], "('recover_on_exit_code' was unexpected)"),
        (["envs", "A"], 1, "1 is not of type 'string'"),
        (["file_mounts", "/bucket", "mode"], "mount", "is not one of"),
        (["num_nodes"], True, "is not of type 'integer'"),
    ],
)
def test_skypilot(keys, value, message):
    text = renderings.of("skypilot")["posthoc-7b.yaml"]
    with pytest.raises(jsonschema.ValidationError, match=re.escape(message)):
        manifests.check("skypilot", changed_key(text, keys, value))


def test_a_missing_key():
    with pytest.raises(jsonschema.ValidationError, match="'resources' is a required property"):
        manifests.check("skypilot", "run: x\n")


def subschemas(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for inner in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, Mapping):
            yield from subschemas(inner)


@pytest.mark.parametrize("name", manifests.SCHEMAS.values())
def test_a_schema_names_its_source_and_misspells_no_word(name):
    schema = manifests.load(name)
    assert "commit" in schema["description"]
    jsonschema.Draft202012Validator.check_schema(schema)
    words = {word for part in subschemas(schema) for word in part}
    assert words <= jsonschema.Draft202012Validator.VALIDATORS.keys() | {"title", "description", "$schema"}
