"""Folders of weights: what is listed, and what is an error."""

from __future__ import annotations

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from vlguard_jax import errors
from vlguard_jax import limits
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
        (
            B,
            {"a": "1.safetensors", "b": "../2.safetensors"},
            r"index\.json: names '\.\./2\.safetensors', which is not a file beside it",
        ),
        (B, {"a": "1.safetensors", "b": "/2.safetensors"}, "which is not a file beside it"),
        (B, {"a": "1.safetensors", "b": "./2.safetensors"}, "which is not a file beside it"),
        (B, {"a": "1.safetensors", "b": ".."}, "which is not a file beside it"),
        (B, {"a": "1.safetensors", "b": ""}, "which is not a file beside it"),
        (B, {"a": "1.safetensors", "b": "2\0.safetensors"}, "which is not a file beside it"),
        (
            B,
            {"a": "1.safetensors", "b": "x" * 256},
            r"names 'x+'\.\.\. \(256 characters\), which is not a file beside it",
        ),
        (B, {"a": "1.safetensors", "b": "3.safetensors"}, r"3\.safetensors: missing shard"),
        (
            A | B,
            {"a": "1.safetensors", "b": "2.safetensors"},
            r"2\.safetensors: duplicate tensor a, also in 1\.safetensors",
        ),
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


def test_shards_may_be_links(tmp_path: pathlib.Path) -> None:
    """As in the hub's cache, where a snapshot is a folder of links."""
    folder = tmp_path / "snapshot"
    folder.mkdir()
    shards(folder, A, B, {"a": "1.safetensors", "b": "2.safetensors"})
    (folder / "2.safetensors").rename(tmp_path / "blob")
    (folder / "2.safetensors").symlink_to("../blob")
    np.testing.assert_array_equal(tensors.open_folder(folder)["b"].read(), B["b"])


def with_header(path: pathlib.Path, header: dict[str, object], room: int = 0) -> None:
    """A safetensors file of four numbers behind a header of one's own."""
    text = json.dumps(header).encode() + b" " * room
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([0, 1 << 62], "tensor t would be far larger than its data"),
        ([1] * 65, "tensor t has 65 dimensions, at most 16 are read"),
        ([1 << 32, 1 << 32], "not a readable safetensors file"),
    ],
)
def test_shapes_beyond_reason(tmp_path: pathlib.Path, shape: list[int], message: str) -> None:
    path, size = tmp_path / "x.safetensors", 4 * (0 not in shape)
    entries = {
        name: {"dtype": "F32", "shape": s, "data_offsets": at}
        for name, s, at in (("t", shape, [0, size]), ("u", [4], [size, 16]))
    }
    entries["u"]["shape"] = [4 - size // 4]
    with_header(path, entries)
    with pytest.raises(errors.UserError, match=message):
        tensors.open_file(path)


def test_two_tensors_of_one_name(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.safetensors"
    first, second = ({"dtype": "F32", "shape": [2], "data_offsets": at} for at in ([0, 8], [8, 16]))
    text = f'{{"t": {json.dumps(first)}, "u": {json.dumps(first)}, "t": {json.dumps(second)}}}'.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(errors.UserError, match=r"x\.safetensors: an object has two values for 't'; leave one"):
        tensors.open_file(path)


def test_headers_of_a_sound_size(tmp_path: pathlib.Path) -> None:
    path, head = tmp_path / "x.safetensors", {"t": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    with_header(path, head)
    np.testing.assert_array_equal(tensors.open_file(path)["t"].read(), np.zeros(4))
    with_header(path, head, limits.SAFETENSORS_HEADER_BYTES)
    with pytest.raises(errors.UserError, match=r"its header has 16,777,\d+ bytes, at most 16,777,216 are read"):
        tensors.open_file(path)
