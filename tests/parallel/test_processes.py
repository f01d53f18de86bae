"""What processes agree on, and how a difference is named."""

import errno

import jax
import pytest

from vlguard_jax import errors
from vlguard_jax import machine
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
    processes.tell_failure(None)
    assert processes.from_first(lambda: 7) == 7 and processes.Team().first
    with pytest.raises(errors.UserError, match=r"^mine$"), processes.together():
        raise errors.UserError("mine")


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (errors.UserError("a: wrong"), errors.EXIT_USER_ERROR, "process 0: a: wrong"),
        (OSError(errno.ENOSPC, "No space left on device", "/w/model"), errors.EXIT_USER_ERROR, "/w/model: no space"),
        (OSError(errno.EIO, "Input/output error", "/w/model"), errors.EXIT_RESTART, "/w/model: input/output error"),
        (KeyError("a"), None, "process 0: KeyError: 'a'"),
    ],
)
def test_what_ended_the_first_ends_the_others_alike(monkeypatch, failure, code, words):
    """The first has said its words; another process hears them."""
    said = []
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_from_first", lambda data: said[0] if said else said.append(data) or data)
    with pytest.raises(type(failure)) as own:
        processes.tell_failure(failure)
    assert own.value is failure
    with pytest.raises(Exception, match="process 0: ") as heard:
        processes.tell_failure(None)
    found = machine.failure(heard.value)
    if isinstance(heard.value, errors.UserError):
        assert (code, str(heard.value)) == (errors.EXIT_USER_ERROR, words)
    elif found is None:
        assert code is None and str(heard.value) == words
    else:
        assert found == machine.failure(failure) and found.code == code and found.line.startswith(words)
