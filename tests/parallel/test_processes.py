"""What processes agree on, and how a difference is named."""

import jax
import pytest

from vlguard_jax import errors
from vlguard_jax.parallel import processes

FACTS = {"config": {"seed": 1, "data": {"c": 2}}, "versions": {"jax": "0.1"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        (
            {"config": {"seed": 1, "data": {"c": 3}}},
            "process 5 has config.data.c=3, process 0 has 2; start all with the same command",
        ),
        (
            {"versions": {"jax": "0.2"}},
            "process 5 has versions.jax='0.2', process 0 has '0.1'; install the same packages and",
        ),
    ],
)
def test_the_first_difference_is_named(change, message):
    said = processes._difference(5, FACTS | change, FACTS)
    assert said.startswith(message) and bool(said) == bool(message)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([(0, "v4"), (1, "v4"), (0, "v4"), (1, "v4")], ""),
        (
            [(0, "v4"), (0, "v4"), (1, "v4"), (1, "v4"), (2, "v4")],
            "process 2 has 1 x v4, process 0 has 2 x v4; start every process on",
        ),
        (
            [(0, "a"), (0, "a"), (1, "a"), (1, "b")],
            "process 1 has 1 x a and 1 x b, process 0 has 2 x a; start every process on",
        ),
    ],
)
def test_other_devices_are_named(devices, message):
    said = processes._uneven(devices)
    assert said.startswith(message) and bool(said) == bool(message)


def test_versions_tell_one_source_from_another(monkeypatch, tmp_path):
    before = processes._versions()
    assert before == processes._versions() and before["jax"] == jax.__version__
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(processes.vlguard_jax, "__file__", str(tmp_path / "__init__.py"))
    assert before["source of vlguard_jax"] != processes._versions()["source of vlguard_jax"]


def test_alone_there_is_nobody_to_ask():
    processes.agree({"a": 1})
    processes.agree_on_files({"a": "b"})
    assert processes.from_first(lambda: 7) == 7 and processes.Team().first
    with pytest.raises(errors.UserError, match=r"^mine$"), processes.together():
        raise errors.UserError("mine")
