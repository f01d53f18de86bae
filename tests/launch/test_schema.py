"""The check of manifests finds what is wrong in them, and says where."""

from __future__ import annotations

import re

import pytest
import yaml

from launch import schema
from tests.launch import stand
from vlguard_jax import errors


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
        ("kind", "Jobset", "kind: 'Jobset' is not 'JobSet'"),
        ("metadata/name", "Posthoc", "metadata.name: 'Posthoc' does not match"),
        ("metadata/name", "x" * 41, "above maxLength 40"),
        ("spec/failurePolicy/maxRestarts", "3", "is not of type integer"),
        ("spec/failurePolicy/maxRestarts", -1, "below minimum 0"),
        (
            "spec/failurePolicy/maxRestart",
            1,
            "spec.failurePolicy.maxRestart: not known here; did you mean 'maxRestarts'",
        ),
        ("spec/replicatedJobs/0/replicas", 0, "below minimum 1"),
        ("spec/replicatedJobs", [], "below minItems 1"),
        (f"{POD}/restartPolicy", "OnFailure", "is not 'Never'"),
        (f"{POD}/nodeSelector/cloud.google.com~gke-tpu-topology", 2, "is not of type string"),
        (f"{POD}/containers/0/resources/limits/google.com~tpu", 4, "is not of type string"),
        (f"{POD}/containers/0/env/0/value", 1, "containers[0].env[0].value"),
    ],
)
def test_jobset(path, value, message):
    text = stand.rendered("gke")["posthoc-7b.yaml"]
    *parents, last = path.split("/")
    with pytest.raises(errors.UserError, match=re.escape(message)):
        schema.check("gke", "a.yaml", changed_key(text, [*parents, last.replace("~", "/")], value))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["resources", "accelerators"], "tpu v5p", "does not match"),
        (["resources", "use_spot"], "yes", "is not of type boolean"),
        (["resources", "job_recovery", "recover_on_exit_code"], [75], "did you mean 'recover_on_exit_codes'"),
        (["envs", "A"], 1, "envs.A: 1 is not of type string"),
        (["file_mounts", "/bucket", "mode"], "mount", "is none of"),
        (["num_nodes"], True, "is not of type integer"),
    ],
)
def test_skypilot(keys, value, message):
    text = stand.rendered("skypilot")["posthoc-7b.yaml"]
    with pytest.raises(errors.UserError, match=re.escape(message)):
        schema.check("skypilot", "a.yaml", changed_key(text, keys, value))


def test_a_missing_key_and_broken_yaml():
    with pytest.raises(errors.UserError, match="'resources' is missing"):
        schema.check("skypilot", "a.yaml", "run: x\n")
    with pytest.raises(errors.UserError, match=r"a\.yaml: not YAML"):
        schema.check("gke", "a.yaml", "a: [\n")


def test_schemas_name_their_source_and_use_known_words():
    for name in schema.SCHEMAS.values():
        loaded = schema.load(name)
        assert "commit" in loaded["description"]
    with pytest.raises(ValueError, match="'oneOf', which is not known"):
        list(schema.problems("x", {"oneOf": []}))
