"""Code of the user's own by name, and what is said when it is not there or fails."""

from __future__ import annotations

import hashlib
import re

import pytest

from vlguard_jax import errors
from vlguard_jax import own_code


def test_an_object_with_the_hash_of_its_file(own_module, tmp_path):
    name = own_module("VALUE = 3\n")
    found = own_code.load(f"{name}:VALUE", "config.loss")
    assert (found.value, found.name, found.file) == (3, f"{name}:VALUE", str(tmp_path / f"{name}.py"))
    assert found.sha256 == hashlib.sha256(b"VALUE = 3\n").hexdigest()


def test_what_is_not_there(own_module):
    name = own_module("VALUE = 3\n")
    for given, message in (
        (f"{name}:VALU", "has no 'VALU'; did you mean 'VALUE'?"),
        ("nowhere.at:all", "cannot be imported: there is no module nowhere on the Python path; start the command in"),
        (f"{name}.more:x", f"{name}"),
        (":x", "must be written as package.module:name"),
        ("x:", "must be written as package.module:name"),
    ):
        with pytest.raises(errors.UserError, match=re.escape(message)) as error:
            own_code.load(given, "config.loss")
        assert str(error.value).startswith("config.loss=") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("x = 1\nimport not_a_package\n", 2, "ModuleNotFoundError: No module named 'not_a_package'"),
        ("def f(:\n", 1, "SyntaxError: "),
    ],
)
def test_a_module_that_fails_is_told_with_its_line(own_module, tmp_path, text, line, what):
    name = own_module(text)
    with pytest.raises(errors.UserError) as error:
        own_code.load(f"{name}:f", "config.judges")
    assert f"cannot be imported: {tmp_path / name}.py:{line}: {what}" in str(error.value)


def test_code_that_fails_is_told_with_its_line(own_module, tmp_path):
    name = own_module("def f(x):\n    return g(x)\n\n\ndef g(x):\n    return int(x)\n")
    found = own_code.load(f"{name}:f", "config.judges")
    with pytest.raises(errors.UserError) as error, found.blamed("on an answer"):
        found.value("many")
    assert f"config.judges: {name}:f failed on an answer: {tmp_path / name}.py:6: ValueError: inv" in str(error.value)
    with pytest.raises(errors.UserError, match=r"^mine$"), found.blamed("on an answer"):
        raise errors.UserError("mine")
