"""Hostile torch `.bin` files: pickles spelled out opcode by opcode, and lies in the zip around them."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
import pickle
import random
import struct
import zipfile
import zlib

import numpy as np

from tests.faults import sandbox
from vlguard_jax.checkpoints import torch_files

ARRAYS = {
    "a.weight": np.arange(12, dtype=np.float16).reshape(3, 4),
    "b.bias": np.arange(5, dtype=np.float32),
    "c": np.array([[1, -2], [3, 4]], np.int64),
}
KINDS = {"float16": "HalfStorage", "float32": "FloatStorage", "int64": "LongStorage"}
DANGEROUS = (
    ("os", "system"),
    ("posix", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "open"),
    ("builtins", "__import__"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.serialization", "load"),
    ("pickle", "loads"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("collections", "OrderedDict.update"),
    ("collections", "Counter"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("webbrowser", "open"),
    ("shutil", "rmtree"),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    ("torch", "device"),
    ("torch", "DoubleTensor"),
    ("vlguard_jax.checkpoints.torch_files", "save_torch"),
)
ODD = (-1, 0, 1 << 31, 1 << 62, 1 << 63, 1 << 200, True, None, "7", 1.5, float("nan"), (), (1,), b"x", "x" * 5000)


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """LONG1, or LONG4."""
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data if len(data) < 256 else b"\x8b" + struct.pack("<i", len(data)) + data


def value_of(value: object) -> bytes:
    """Opcodes that push `value`."""
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bytes):
        return b"C" + bytes([len(value)]) + value
    if isinstance(value, list):
        return b"](" + b"".join(map(value_of, value)) + b"e"
    assert isinstance(value, tuple)
    return b"(" + b"".join(map(value_of, value)) + b"t"


def storage(key: object, kind: str, count: object, *, tag: object = "storage", place: object = "cpu") -> bytes:
    """A persistent id, as torch writes it."""
    return (
        b"(" + value_of(tag) + f"ctorch\n{kind}\n".encode() + value_of(key) + value_of(place) + value_of(count) + b"tQ"
    )


def tensor(stored: bytes, offset: object, shape: object, strides: object) -> bytes:
    """A call of torch._utils._rebuild_tensor_v2."""
    rest = value_of(offset) + value_of(shape) + value_of(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + rest + b"\x89ccollections\nOrderedDict\n)RtR"


def sound(array: np.ndarray, key: str, /, **lies: object) -> bytes:
    """The opcodes of a whole tensor; `lies` replace what is true of it."""
    strides = tuple(int(s) // array.itemsize for s in array.strides)
    true = {"count": array.size, "offset": 0, "shape": tuple(array.shape), "strides": strides, "key": key} | lies
    stored = storage(true["key"], KINDS[array.dtype.name], true["count"])
    return tensor(stored, true["offset"], true["shape"], true["strides"])


def program(items: dict[str, bytes]) -> bytes:
    """A pickle of a dict of tensors."""
    return b"\x80\x02}(" + b"".join(text(name) + code for name, code in items.items()) + b"u."


def state() -> dict[str, bytes]:
    """The opcodes of ARRAYS."""
    return {name: sound(array, str(i)) for i, (name, array) in enumerate(ARRAYS.items())}


def archive(
    path: pathlib.Path, code: bytes, *, method: int = zipfile.ZIP_STORED, more: dict[str, bytes] | None = None
) -> None:
    """A torch zip file around a pickle."""
    members = {"m/data.pkl": code, "m/byteorder": b"little"}
    members |= {f"m/data/{i}": array.tobytes() for i, array in enumerate(ARRAYS.values())} | {"m/version": b"3\n"}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in (members | (more or {})).items():
            file.writestr(zipfile.ZipInfo(name), data, method)


def read(path: pathlib.Path) -> dict[str, list]:
    """All tensors, through the reader under test."""
    opened = torch_files.open_torch(path)
    return {name: [tensor.dtype.name, tensor.read().tolist()] for name, tensor in sorted(opened.items())}


RIGHT = {name: [array.dtype.name, array.tolist()] for name, array in ARRAYS.items()}


def _sound(rng: random.Random, path: pathlib.Path) -> object:
    archive(path, program(state()))
    return RIGHT


def _truncated(rng: random.Random, path: pathlib.Path) -> object:
    archive(path, program(state()))
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])
    return sandbox.Nothing


def _flipped(rng: random.Random, path: pathlib.Path) -> object:
    """A pickle's flip is in the member's checksum, a member's name in no checksum."""
    archive(path, program(state()))
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return RIGHT


def _dangerous(rng: random.Random, path: pathlib.Path) -> object:
    module, name = rng.choice(DANGEROUS)
    ask = f"c{module}\n{name}\n".encode()
    if rng.random() < 0.4:
        ask = text(module) + text(name) + b"\x93"  # STACK_GLOBAL
    if rng.random() < 0.2:
        ask = b"(" + value_of("touch ran") + f"i{module}\n{name}\n".encode()  # INST
    else:
        ask += rng.choice([b"(" + value_of("touch ran") + b"tR", b")\x81", b")R", b"}b", b""])
    items = state()
    items[rng.choice(list(items))] = ask
    archive(path, b"\x80\x04" + program(items)[2:])
    return sandbox.Nothing


def _built(rng: random.Random, path: pathlib.Path) -> object:
    """BUILD, which sets attributes or calls __setstate__, on what the pickle may name."""
    kind = rng.choice([*KINDS.values(), "BFloat16Storage", "DoubleStorage"])
    target = rng.choice(
        [
            f"ctorch\n{kind}\n".encode(),
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"ccollections\nOrderedDict\n",
            b"ccollections\nOrderedDict\n)R",
            storage("0", "HalfStorage", 12),
            sound(ARRAYS["b.bias"], "1"),
        ]
    )
    new = rng.choice(
        [
            value_of((3, "<", None, None, None, 1, 1, 0)),
            value_of((3, "|", None, None, None, rng.choice([-1, 1, 1 << 20]), 1, 0)),
            b"}(" + text("__class__") + b"ccollections\nOrderedDict\nu",
            b"}(" + text("shape") + value_of((1 << 40,)) + b"u",
            b"N}(" + text("shape") + value_of((4,)) + b"u\x86",
            value_of(rng.choice(ODD)),
        ]
    )
    where = rng.randrange(3)
    if where == 0:
        code = b"\x80\x02" + target + new + b"b0" + program(state())[2:]
    elif where == 1:
        code = program(state() | {"b.bias": sound(ARRAYS["b.bias"], "1") + new + b"b"})
    else:
        code = program(state())[:-1] + new + b"b."
    archive(path, code)
    return RIGHT


def _called(rng: random.Random, path: pathlib.Path) -> object:
    """REDUCE with arguments that its function never sees."""
    name = rng.choice(
        [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"ccollections\nOrderedDict\n"]
    )
    arguments = tuple(rng.choice(ODD) for _ in range(rng.randrange(8)))
    items = state()
    items["a.weight"] = name + value_of(arguments) + b"R"
    if rng.random() < 0.3:  # numbers that stand for their opposites
        whole = sound(ARRAYS["a.weight"], "0")
        items["a.weight"] = whole[:-2] + b"}" + text(rng.choice(["neg", "conj"])) + b"\x88stR"
    archive(path, program(items))
    return sandbox.Nothing


def _lied(rng: random.Random, path: pathlib.Path) -> object:
    """Sizes and places that cannot be."""
    name = rng.choice(list(ARRAYS))
    array, key = ARRAYS[name], str(list(ARRAYS).index(name))
    far = rng.choice([array.size + 1, 1 << 31, 1 << 62, 1 << 64, 1 << 200])
    lies: dict[str, object] = rng.choice([
        {"offset": rng.choice([-1, array.size, far, "0", 0.5, None])},
        {"shape": (*array.shape[1:], far)},
        {"shape": rng.choice([(-1,), ("3",), (1.0,), (None,), 3, None, "34", (far,)]), "strides": (1,)},
        {"shape": (rng.choice([1 << 31, 1 << 62, 1 << 200]),), "strides": (0,)},
        {"shape": (), "strides": (), "count": 0},
        {"shape": (1 << 20,) * 4, "strides": (0,) * 4},
        {"shape": (1,) * 65, "strides": (1,) * 65},
        {"strides": tuple(-s for s in range(1, array.ndim + 1))},
        {"strides": (1,) * (array.ndim + 1)},
        {"strides": (far,) * array.ndim},
        {"count": rng.choice([-1, far, "7", None, 1.5, (1,)])},
        {"key": rng.choice(["9", "../1", "/etc/passwd", "", "1\0", 7, None, ("0",), "x" * 70000])},
    ])  # fmt: skip
    items = state()
    items[name] = sound(array, key, **lies)
    archive(path, program(items))
    return sandbox.Nothing


def _swollen(rng: random.Random, path: pathlib.Path) -> object:
    """Few bytes that ask for much."""
    bomb = rng.choice([
        # LONG_BINPUT makes room for that many
        b"Nr" + struct.pack("<I", rng.choice([1 << 26, 1 << 28, (1 << 32) - 1])),
        b"\x8d" + struct.pack("<Q", rng.choice([1 << 34, 1 << 62, (1 << 64) - 1])),  # BINUNICODE8
        b"\x8e" + struct.pack("<Q", 1 << 40),  # BINBYTES8
        b"\x96" + struct.pack("<Q", 1 << 34),  # BYTEARRAY8
        b"\x95" + struct.pack("<Q", 1 << 60),  # FRAME
        b"\x8b" + struct.pack("<i", (1 << 31) - 1),  # LONG4
        b"N" + b"".join(b"q%c(h%ch%ct" % (i, i, i) for i in range(60)),
        b"(" * 200_000,
        b"]" * 100_000 + b"a" * 99_999,
        b"I" + b"9" * 50_000 + b"\n",
        b"L" + b"9" * 50_000 + b"L\n",
    ])  # fmt: skip
    place = rng.choice(["before", "key", "value"])
    sound_rest = program(state())[2:]
    if place == "before":
        code = b"\x80\x04" + bomb + b"0" + sound_rest
    else:
        key, value = (bomb, value_of(1)) if place == "key" else (text("z"), bomb)
        code = b"\x80\x04}(" + key + value + b"u."
    archive(path, code)
    return RIGHT if place == "before" else sandbox.Nothing


def _deflated(rng: random.Random, path: pathlib.Path) -> object:
    """A compressed pickle that holds a gigabyte and more."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    times = rng.choice([1200, 3000])
    data = block * times + b"\x03\x00"
    name = b"m/data.pkl"
    head = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 0, 0, len(data), times << 20, len(name), 0)
    local = b"PK\3\4" + head + name + data
    entry = b"PK\1\2" + struct.pack("<H", 20) + head + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name
    path.write_bytes(local + entry + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(entry), len(local), 0))
    return sandbox.Nothing


def _packed(rng: random.Random, path: pathlib.Path) -> object:
    """Lies in the zip."""
    code = program(state())
    which = rng.randrange(8)
    if which == 6:
        nested(path, code)
    elif which == 7:
        path.write_bytes(b"PK\1\2" + bytes(42) + (b"PK\1\2" + bytes(42)) * 500_000)
        with path.open("ab") as file:
            file.write(b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 65535, 65535, 46 * 500_001, 0, 0))
    elif which == 0:
        archive(path, code, method=zipfile.ZIP_DEFLATED)
        return RIGHT
    if which == 1:
        archive(path, code, more={"m/byteorder": b"big"})
    elif which == 2:
        archive(path, code, more={"n/data.pkl": code})
    elif which == 3:
        archive(path, code)
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(zipfile.ZipInfo("m/data/1"), b"\xff" * ARRAYS["b.bias"].nbytes)
    elif which == 4:  # the directory sends one tensor to the bytes of another
        archive(path, code)
        data = bytearray(path.read_bytes())
        entries = [i for i in range(len(data) - 46) if data[i : i + 4] == b"PK\1\2"]
        first, second = rng.sample([e for e in entries if data[e + 46 : e + 53] == b"m/data/"], 2)
        data[first + 42 : first + 46] = data[second + 42 : second + 46]
        path.write_bytes(data)
    else:  # a directory entry of 64-bit sizes that nobody has
        archive(path, code)
        data = bytearray(path.read_bytes())
        entry = data.index(b"PK\1\2")
        data[entry + 20 : entry + 28] = b"\xff" * 8
        path.write_bytes(data)
    return sandbox.Nothing


def nested(path: pathlib.Path, code: bytes) -> None:
    """A member inside another one, whose numbers are its header and its numbers."""
    name, other = b"m/data/1", ARRAYS["b.bias"].nbytes
    crc = zlib.crc32(b"\1" * other)
    head = b"PK\3\4" + struct.pack("<HHHHHLLLHH", 20, 0, 0, 0, 0, crc, other, other, len(name), 0) + name
    archive(path, code, more={"m/data/0": head + b"\1" * other})
    data = bytearray(path.read_bytes())
    entry = next(i for i in range(len(data) - 46) if data[i : i + 4] == b"PK\1\2" and data[i + 46 : i + 54] == name)
    data[entry + 16 : entry + 20] = struct.pack("<L", crc)
    data[entry + 42 : entry + 46] = struct.pack("<L", data.index(head))
    path.write_bytes(data)


MAKERS: dict[str, Callable[[random.Random, pathlib.Path], object]] = {
    "sound": _sound,
    "truncated": _truncated,
    "flipped": _flipped,
    "dangerous global": _dangerous,
    "state of a known object": _built,
    "odd arguments": _called,
    "sizes that lie": _lied,
    "few bytes, much memory": _swollen,
    "compressed bomb": _deflated,
    "lies in the zip": _packed,
}


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One file and its trial."""
    kinds = [kind for kind in MAKERS if kind != "compressed bomb" or rng.random() < 0.1]
    kind = rng.choice(kinds)
    path = folder / "pytorch_model.bin"
    right = MAKERS[kind](rng, path)
    return sandbox.Trial(kind, lambda: read(path), right, must_read=kind == "sound")
