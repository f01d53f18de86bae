"""Folders of weights: what is listed, and what is an error."""

from __future__ import annotations

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from vlguard_jax import errors
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import torch_files

A = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
B = {"b": np.ones(4, ml_dtypes.bfloat16)}


def shards(folder: pathlib.Path, first: dict, second: dict, weight_map: dict[str, str]) -> pathlib.Path:
    safetensors.numpy.save_file(first, folder / "1.safetensors")
    safetensors.numpy.save_file(second, folder / "2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_shards_and_order_of_preference(tmp_path: pathlib.Path) -> None:
    torch_files.save_torch(tmp_path / "pytorch_model.bin", {"c": np.zeros(1, np.float32)})
    assert list(tensors.open_folder(tmp_path)) == ["c"]
    shards(tmp_path, A, B, {"a": "1.safetensors", "b": "2.safetensors"})
    found = tensors.open_folder(tmp_path)
    assert found.keys() == {"a", "b"}
    assert found["b"].dtype == ml_dtypes.bfloat16 and found["b"].file.name == "2.safetensors"
    np.testing.assert_array_equal(found["a"].read(), A["a"])
    np.testing.assert_array_equal(found["b"].read(), B["b"])


@pytest.mark.parametrize(
    ("second", "weight_map", "message"),
    [
        (B, {"a": "1.safetensors", "b": "3.safetensors"}, r"3\.safetensors: missing shard"),
        (A | B, {"a": "1.safetensors", "b": "2.safetensors"}, r"2\.safetensors: duplicate tensor a, also in 1\.safetensors"),
        (B, {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}, r"2\.safetensors: missing tensor c"),
        (B, {"a": "2.safetensors", "b": "2.safetensors"}, r"2\.safetensors: missing tensor a"),
    ],
)
def test_shards_that_do_not_fit(tmp_path: pathlib.Path, second: dict, weight_map: dict[str, str], message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        tensors.open_folder(shards(tmp_path, A, second, weight_map))


def test_damaged_files(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(A, path)
    whole = path.read_bytes()
    for length in (0, 5, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(errors.UserError, match=r"model\.safetensors: not a readable safetensors file"):
            tensors.open_folder(tmp_path)
    with pytest.raises(errors.UserError, match="no such file"):
        tensors.open_file(tmp_path / "none.safetensors")
    path.unlink()
    with pytest.raises(errors.UserError, match="no weights here"):
        tensors.open_folder(tmp_path)
