"""What a command line gives is looked at before a model is loaded."""

from __future__ import annotations

import io
import pathlib

import pytest

from tests.data import stand as data_stand
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.asking import given as given_lib


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b" \n", "standard input is empty"),
        (b"a\xff", "no UTF-8 text: byte 1"),
        (b"x" * (limits.QUESTION_BYTES + 1), "more than 1,048,576 bytes"),
    ],
)
def test_standard_input_is_one_question(given: bytes, message: str) -> None:
    assert given_lib.read_question(io.BytesIO(b"Wer\nist das?\r\n").read) == "Wer\nist das?"
    with pytest.raises(errors.UserError, match=message):
        given_lib.read_question(io.BytesIO(given).read)


def test_pictures_are_looked_at_before_a_model_is_loaded(tmp_path: pathlib.Path) -> None:
    given_lib.check_pictures([str(data_stand.write_picture(tmp_path / "a.png"))])
    (tmp_path / "bomb.png").write_bytes(data_stand.bomb(30_000, 30_000))
    for name, message in (
        ("none.png", "no such picture"),
        ("bomb.png", "more than 67,108,864 pixels"),
        (".", "not a readable"),
    ):
        with pytest.raises(errors.UserError, match=message):
            given_lib.check_pictures([str(tmp_path / name)])
