"""GGUF files: read as llama.cpp's own reader and transformers read them, and refused in one line where they lie."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import importlib.machinery
import pathlib
import struct
import sys
import tracemalloc
import types

import numpy as np
import pytest

from tests.checkpoints import gguf_made as made
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.checkpoints import gguf_files

gguf = pytest.importorskip("gguf")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "model.gguf"


def test_settings_and_tensors_are_those_of_llama_cpps_reader(path: pathlib.Path) -> None:
    path.write_bytes(made.whole())
    ours, theirs = gguf_files.read(path), gguf.GGUFReader(path)
    own = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.settings == own and set(ours.tensors) == {one.name for one in theirs.tensors}
    assert ours.kinds == {"F32": 5, "Q8_0": 15}
    for one in theirs.tensors:
        tensor = ours.tensors[one.name]
        assert tensor.shape == tuple(int(n) for n in reversed(one.shape)) and tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor.read(), gguf.dequantize(one.data, one.tensor_type).reshape(tensor.shape))


def test_settings_of_every_type(path: pathlib.Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    values = {"uint8": 255, "int8": -128, "uint16": 65535, "int16": -2, "uint32": 1 << 31, "int32": -1}
    values |= {
        "uint64": (1 << 64) - 1,
        "int64": -(1 << 63),
        "float32": 0.5,
        "float64": 0.1,
        "bool": True,
        "string": "ä",
    }
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(kind, value)
    lists = {"texts": ["a", "Ġb"], "numbers": [1, -2], "halves": [0.5, 1.5], "flags": [True, False]}
    for key, value in lists.items():
        writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert gguf_files.read(path).settings == {"general.architecture": "llama", **values, **lists}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0"])
def test_numbers_of_each_kind_are_transformers_own(kind: str, path: pathlib.Path) -> None:
    """Its code for blocks shares nothing with llama.cpp's package, which ours calls."""
    torch = pytest.importorskip("torch")
    dequant = pytest.importorskip("transformers.integrations.gguf.dequant")
    number = gguf.GGMLQuantizationType[kind]
    data = gguf.quantize(np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32), number).tobytes()
    path.write_bytes(made.packed({}, [made.Stored("x", (6, 64), int(number), data)]))
    tensor = gguf_files.read(path).tensors["x"]
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    plain = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if kind in plain:
        theirs = raw.view(plain[kind]).float().numpy().reshape(6, 64)
        assert tensor.dtype.itemsize == plain[kind].itemsize
    else:
        theirs = dequant.dequantize(raw.reshape(6, -1), int(number), torch.float32).numpy().reshape(6, 64)
    np.testing.assert_array_equal(tensor.read().astype(np.float32), theirs)


def test_a_file_cut_anywhere_is_refused(path: pathlib.Path) -> None:
    whole = made.whole()
    for size in [0, 1, 3, 4, 7, 8, 23, 24, *range(25, len(whole), 997), len(whole) - 32, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(errors.UserError, match=r"truncated|empty|not a GGUF file") as refusal:
            gguf_files.read(path)
        assert str(path) in str(refusal.value)


def _with(**changes: object) -> Callable[[], bytes]:
    """One tensor beside one setting, with this changed."""
    sound = made.Stored("x", (2, 32), made.PLAIN, bytes(256))
    return lambda: made.packed({"a": made.Value(made.U32, 1)}, [sound._replace(**changes)])


def _raw(key: bytes, kind: int, value: bytes) -> Callable[[], bytes]:
    return lambda: b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<I", kind) + value


KEY = made.text("k")
FAR = (1 << 64) - 1
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "another file": (lambda: b"PK\3\4" + bytes(99), "not a GGUF file"),
    "version 1": (lambda: made.packed({}, [], version=1), "version 1 of the format"),
    "version 9": (lambda: made.packed({}, [], version=9), "version 9 of the format"),
    "big-endian": (lambda: b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "count of tensors": (lambda: made.packed(made.settings(), made.tensors(), counts=(FAR, 25)), "truncated"),
    "count of settings": (lambda: made.packed(made.settings(), made.tensors(), counts=(20, FAR)), "truncated"),
    "length of a key": (_raw(struct.pack("<Q", FAR), 4, bytes(8)), "truncated"),
    "length of a text": (_raw(KEY, made.STRING, struct.pack("<Q", 1 << 62)), "truncated"),
    "length of a list": (_raw(KEY, made.ARRAY, struct.pack("<IQ", made.U8, 1 << 60)), "truncated"),
    "length of a list of texts": (_raw(KEY, made.ARRAY, struct.pack("<IQ", made.STRING, 1 << 60)), "truncated"),
    "list of lists": (_raw(KEY, made.ARRAY, struct.pack("<IQ", made.ARRAY, 1) + bytes(99)), "list of an unknown type"),
    "type of a setting": (_raw(KEY, 77, bytes(99)), "unknown type"),
    "no flag": (_raw(KEY, made.BOOL, b"\2"), "neither true nor false"),
    "no UTF-8": (_raw(KEY, made.STRING, made.text(b"\xff")), "not UTF-8"),
    "key twice": (
        lambda: b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + made.setting("k", made.Value(made.U8, 1)) * 2,
        "two values",
    ),
    "alignment": (lambda: made.packed({"general.alignment": made.Value(made.U32, 3)}, []), "power of two"),
    "no dimension": (_with(shape=()), "0 dimensions"),
    "five dimensions": (_with(shape=(1, 1, 1, 2, 32)), "5 dimensions"),
    "empty tensor": (_with(shape=(0, 32)), "cannot have"),
    "huge tensor": (_with(shape=(1 << 62, 1 << 62)), "truncated"),
    "half a block": (_with(shape=(2, 31), type=made.Q8_0), "cannot have"),
    "unknown quantization": (_with(type=200), "type number 200"),
    "removed quantization": (_with(type=4), "does not read"),
    "whole numbers": (_with(type=24), "type I8"),
    "tensor twice": (lambda: made.packed({}, [made.Stored("x", (32,), made.PLAIN, bytes(128))] * 2), "two tensors"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_one_line(case: str, path: pathlib.Path) -> None:
    content, words = HOSTILE[case]
    path.write_bytes(content())
    tracemalloc.start()
    try:
        with pytest.raises(errors.UserError, match=words) as refusal:
            gguf_files.read(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the second of two tensors of 128 bytes is said to lie."""

    offset: int
    words: str


@pytest.mark.parametrize("place", [Place(0, "share bytes"), Place(96, "share bytes"), Place(100, "odd place")])
def test_tensors_lie_apart(place: Place, path: pathlib.Path) -> None:
    one, other = (made.Stored(name, (32,), made.PLAIN, bytes(128)) for name in "xy")
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + made.entry(one, 0) + made.entry(other, place.offset)
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(256))
    with pytest.raises(errors.UserError, match=place.words):
        gguf_files.read(path)


def test_more_values_than_a_header_has_are_refused(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(made.whole())
    monkeypatch.setattr(limits, "JSON_VALUES", 500)
    with pytest.raises(errors.UserError, match="more than 500 values"):
        gguf_files.read(path)
    monkeypatch.setattr(limits, "GGUF_HEADER_BYTES", 5000)
    monkeypatch.setattr(limits, "JSON_VALUES", 1 << 21)
    with pytest.raises(errors.UserError, match="more than 5,000 bytes"):
        gguf_files.read(path)


def test_without_the_package_the_command_that_installs_it_is_named(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(made.whole())
    monkeypatch.setattr(gguf_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.UserError, match="python -m pip install --no-deps gguf"):
        gguf_files.read(path)


def test_another_package_of_the_name_is_refused(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(made.whole())
    other = types.ModuleType("gguf")
    other.__spec__ = importlib.machinery.ModuleSpec("gguf", None)
    monkeypatch.setitem(sys.modules, "gguf", other)
    with pytest.raises(errors.UserError, match=r"holds no GGMLQuantizationType.*--upgrade"):
        gguf_files.read(path)
