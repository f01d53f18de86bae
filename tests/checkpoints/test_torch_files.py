"""Torch zip files against torch itself, and everything that must be refused."""

from __future__ import annotations

from collections import OrderedDict
import os
import pathlib
import pickle
import zipfile

import hypothesis
from hypothesis import strategies as st
import ml_dtypes
import numpy as np
import pytest
import torch

from tests.faults import weights_torch as forged
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.checkpoints import torch_files


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    whole = torch.randn(6, 8)
    return {
        "half": torch.randn(3, 4).half(),
        "bfloat": torch.randn(5).bfloat16(),
        "double": torch.randn(2, 2).double(),
        "long": torch.arange(7).reshape(1, 7),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "transposed": whole.T,
        "part": whole[1:4, ::2],  # shares its storage, has an offset and strides
        "repeated": torch.ones(1, 4).expand(3, 4),
    }


def test_reads_what_torch_wrote(tmp_path: pathlib.Path) -> None:
    tensors = OrderedDict(state())
    tensors["parameter"] = torch.nn.Parameter(torch.randn(4))
    torch.save(tensors, tmp_path / "x.bin")
    found = torch_files.open_torch(tmp_path / "x.bin")
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        expected = as_numpy(tensor.detach())
        assert found[name].shape == expected.shape and found[name].dtype == expected.dtype
        value = found[name].read()
        assert value.dtype == expected.dtype and value.flags.writeable
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_reads_a_module_state_dict(tmp_path: pathlib.Path) -> None:
    module = torch.nn.Linear(3, 2)
    torch.save(module.state_dict(), tmp_path / "x.bin")  # an OrderedDict with attributes
    found = torch_files.open_torch(tmp_path / "x.bin")
    np.testing.assert_array_equal(found["weight"].read(), module.weight.detach().numpy())


def test_torch_reads_what_we_write(tmp_path: pathlib.Path) -> None:
    arrays = {name: as_numpy(tensor) for name, tensor in state().items()}
    torch_files.save_torch(tmp_path / "x.bin", arrays)
    for mapped in (False, True):
        found = torch.load(tmp_path / "x.bin", weights_only=True, mmap=mapped)
        assert list(found) == list(arrays)
        for name, value in arrays.items():
            assert found[name].is_contiguous()
            np.testing.assert_array_equal(as_numpy(found[name]), value, err_msg=name)
    torch_files.save_torch(tmp_path / "y.bin", dict(arrays))
    assert (tmp_path / "y.bin").read_bytes().replace(b"y/", b"x/") == (tmp_path / "x.bin").read_bytes()


class Malicious:
    def __init__(self, function: object, *args: object):
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (Malicious(os.system, "exit 1"), "posix.system"),
        (Malicious(eval, "1"), "__builtin__.eval"),
        (Malicious(getattr, "x", "upper"), "__builtin__.getattr"),
        (Malicious(torch.load, "x"), "torch.serialization.load"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_refuses_other_globals(tmp_path: pathlib.Path, content: object, name: str) -> None:
    path = tmp_path / "bad.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad/data.pkl", pickle.dumps({"w": content}, protocol=2))
    with pytest.raises(errors.UserError, match=rf"bad\.bin: refused to load, since it asks for {name}"):
        torch_files.open_torch(path)


def test_refuses_to_reach_beyond_the_data(tmp_path: pathlib.Path) -> None:
    good, bad = tmp_path / "good.bin", tmp_path / "bad.bin"
    torch_files.save_torch(good, {"w": np.ones(300, np.float32)})
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for member in source.namelist():
            data = source.read(member)
            target.writestr(member, data[:40] if member.endswith("data/0") else data)
    with pytest.raises(errors.UserError, match=r"bad\.bin: tensor w reaches beyond its data"):
        torch_files.open_torch(bad)
    pickled = torch_files._pickle_state({"w": np.ones(300, np.float32)}).replace(
        b"J\x01\x00\x00\x00t", b"J\x02\x00\x00\x00t"
    )
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for member in source.namelist():
            target.writestr(member, pickled if member.endswith(".pkl") else source.read(member))
    with pytest.raises(errors.UserError, match="tensor w reaches beyond its data"):
        torch_files.open_torch(bad)


def test_refuses_damaged_files(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.bin"
    torch.save({"w": torch.ones(100)}, path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(errors.UserError, match=r"x\.bin: not a readable torch zip file"):
            torch_files.open_torch(path)
    torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(errors.UserError, match=r"torch before 1\.6"):
        torch_files.open_torch(path)
    with pytest.raises(errors.UserError, match="no such file"):
        torch_files.open_torch(tmp_path / "none.bin")


@pytest.mark.parametrize(
    "content", [{"model": {"w": torch.ones(2)}}, {"epoch": 3}, [torch.ones(2)], {1: torch.ones(2)}]
)
def test_refuses_other_content(tmp_path: pathlib.Path, content: object) -> None:
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(errors.UserError, match="something else than a flat dict of tensors"):
        torch_files.open_torch(tmp_path / "x.bin")


def test_refuses_big_endian_and_compressed(tmp_path: pathlib.Path) -> None:
    torch_files.save_torch(tmp_path / "x.bin", {"w": np.ones(300, np.float32)})
    for name, compression, order, message in (
        ("big.bin", zipfile.ZIP_STORED, b"big", "big-endian"),
        ("packed.bin", zipfile.ZIP_DEFLATED, b"little", "compressed"),
    ):
        with (
            zipfile.ZipFile(tmp_path / "x.bin") as source,
            zipfile.ZipFile(tmp_path / name, "w", compression) as target,
        ):
            for member in source.namelist():
                target.writestr(member, order if member.endswith("byteorder") else source.read(member))
        with pytest.raises(errors.UserError, match=message):
            torch_files.open_torch(tmp_path / name)


def test_checksums_are_compared_where_torch_wrote_them(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.bin"
    torch.save({"w": torch.arange(300.0), "v": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("x/data/0").header_offset + 600
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    found = torch_files.open_torch(path)
    np.testing.assert_array_equal(found["v"].read(), np.ones(4))
    for _ in range(2):
        with pytest.raises(errors.UserError, match=r"x\.bin: x/data/0 is not what was written \(checksum\)"):
            found["w"].read()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(300.0)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(torch_files.open_torch(path)["w"].read(), np.arange(300))


def lies(array: np.ndarray) -> dict[str, dict[str, object]]:
    """What a file may say of the five numbers in `array`, and of nothing."""
    assert array.shape == (5,)
    return {
        "count": {"count": 1 << 40},
        "offset": {"offset": 1},
        "stride": {"strides": (1 << 62,)},
        "scalar of nothing": {"shape": (), "strides": (), "count": 0},
        "vector of nothing": {"shape": (1,), "count": 0},
        "negative": {"shape": (-1,)},
        "negative stride": {"strides": (-1,), "offset": 4},
        "axes": {"strides": (1, 1)},
    }


@pytest.mark.parametrize("lie", lies(forged.ARRAYS["b.bias"]))
def test_refuses_places_that_are_not_there(tmp_path: pathlib.Path, lie: str) -> None:
    array = forged.ARRAYS["b.bias"]
    forged.archive(tmp_path / "x.bin", forged.program({"b.bias": forged.sound(array, "1", **lies(array)[lie])}))
    with pytest.raises(errors.UserError, match=r"tensor b\.bias reaches beyond its data"):
        torch_files.open_torch(tmp_path / "x.bin")


def test_sizes_are_looked_at_before_memory_is_taken(tmp_path: pathlib.Path) -> None:
    array, path = forged.ARRAYS["b.bias"], tmp_path / "x.bin"
    for lie, message in (
        ({"shape": (1 << 40,), "strides": (0,)}, "far larger than its data"),
        ({"shape": (1 << 20,) * 4, "strides": (0,) * 4}, "far larger than its data"),
        ({"shape": (0, 1 << 62, 1 << 62), "strides": (1, 1, 1)}, "far larger than its data"),
        ({"shape": (1,) * 65, "strides": (1,) * 65}, "65 dimensions"),
    ):
        forged.archive(path, forged.program({"w": forged.sound(array, "1", **lie)}))
        with pytest.raises(errors.UserError, match=message):
            torch_files.open_torch(path)
    forged.archive(path, b"N" * (limits.PICKLE_BYTES + 1))
    with pytest.raises(errors.UserError, match=r"its data\.pkl has 2,097,153 bytes"):
        torch_files.open_torch(path)
    directory = b"PK\1\2" + bytes(limits.ZIP_DIRECTORY_BYTES)
    end = b"PK\5\6" + b"\0\0" * 2 + b"\1\0" * 2 + len(directory).to_bytes(4, "little") + bytes(6)
    path.write_bytes(directory + end)
    with pytest.raises(errors.UserError, match="a directory of 16,777,220 bytes"):
        torch_files.open_torch(path)


def test_members_stand_apart(tmp_path: pathlib.Path) -> None:
    path, code = tmp_path / "x.bin", forged.program(forged.state())
    forged.nested(path, code)
    with pytest.raises(errors.UserError, match="m/data/0 is not where the file's directory says"):
        forged.read(path)
    forged.archive(path, code)
    data = bytearray(path.read_bytes())
    first, second = (data.index(b"PK\1\2", data.rindex(name) - 46) for name in (b"m/data/0", b"m/data/1"))
    data[first + 42 : first + 46] = data[second + 42 : second + 46]
    path.write_bytes(data)
    with pytest.raises(errors.UserError, match="is not where the file's directory says"):
        forged.read(path)
    forged.archive(path, code)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("m/data/1", bytes(20))
    with pytest.raises(errors.UserError, match="two members of one name"):
        forged.read(path)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.binary(min_size=1, max_size=4), st.floats(0, 1, exclude_max=True))
def test_damage_anywhere_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, new: bytes, place: float
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "x.bin"
    forged.archive(path, forged.program(forged.state()))
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    data[at : at + len(new)] = new
    path.write_bytes(data)
    try:
        assert forged.read(path) == forged.RIGHT
    except errors.UserError as e:
        assert "x.bin" in str(e)
