"""What is written is read again, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.verifying import made
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.verifying import golden


def test_a_folder_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    expected = made.answers()
    found = golden.read(made.write(tmp_path / "golden"))
    assert found.record.rows == made.ROWS and found.record.stops == [2] and found.record.source == "owner/name"
    for ours, theirs in zip(found.answers, expected, strict=True):
        for field in dataclasses.fields(golden.Answer):
            a, b = getattr(ours, field.name), getattr(theirs, field.name)
            if isinstance(b, np.ndarray):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
            else:
                assert a == b
    with pytest.raises(errors.UserError, match="golden is there already"):
        made.write(tmp_path / "golden")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ids", np.asarray([1, 12, 5, -200], np.int32), "do not belong together"),
        ("ids", np.asarray([1, 5], np.int32), "do not belong together"),
        ("answer", np.asarray([3, -1], np.int32), "do not belong together"),
        ("margins", np.ones(3, np.float32), "do not belong together"),
        ("logits", np.ones((4, 13), np.float32), "do not belong together"),
        ("logits", np.full((4, 12), np.nan, np.float32), "shown/logits holds NaN"),
        ("logits", np.zeros((0, 12), np.float32), r"shown/logits is float32\[0, 12\]"),
        ("picture", np.zeros((9, 7, 4), np.uint8), "do not belong together"),
        ("picture", None, "do not belong together"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: pathlib.Path, field: str, value: np.ndarray | None, message: str) -> None:
    first, second = made.answers()
    folder = made.write(tmp_path / "golden", [dataclasses.replace(first, **{field: value}), second])
    with pytest.raises(errors.UserError, match=message):
        golden.read(folder)


def test_another_file_of_arrays(tmp_path: pathlib.Path) -> None:
    folder = made.write(tmp_path / "golden")
    path = folder / golden.ARRAYS
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(errors.UserError, match=r"is not the file that golden\.json was written with \(sha256\)"):
        golden.read(folder)
    path.unlink()
    with pytest.raises(errors.UserError, match=r"golden\.safetensors: no such file"):
        golden.read(folder)


def _written(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    safetensors_numpy.save_file(arrays, folder / golden.ARRAYS)
    record = json.loads((folder / golden.RECORD).read_text())
    record["arrays_sha256"] = golden.digest(folder / golden.ARRAYS)
    (folder / golden.RECORD).write_text(json.dumps(record))


def test_a_kind_or_an_owner_that_is_not_known(tmp_path: pathlib.Path) -> None:
    folder = made.write(tmp_path / "golden")
    arrays = safetensors_numpy.load_file(folder / golden.ARRAYS)
    _written(folder, {**arrays, "../x/ids": arrays["text/ids"]})
    with pytest.raises(errors.UserError, match=r"array '\.\./x/ids' is of no prompt"):
        golden.read(folder)
    _written(folder, {**arrays, "text/ids": arrays["text/ids"].astype(np.int64)})
    with pytest.raises(errors.UserError, match=r"text/ids is int64\[3\]"):
        golden.read(folder)
    _written(folder, {name: value for name, value in arrays.items() if name != "text/answer"})
    with pytest.raises(errors.UserError, match="text/answer is missing"):
        golden.read(folder)


def test_a_file_beyond_the_limit(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made.write(tmp_path / "golden")
    monkeypatch.setattr(limits, "GOLDEN_BYTES", 100)
    with pytest.raises(errors.UserError, match="bytes, at most 100 are read"):
        golden.read(folder)
