"""Pickles of state dicts: what torch writes is read, and whatever else a pickle may say is refused and changes
nothing."""

from __future__ import annotations

from collections import OrderedDict
import io
import pathlib
import pickle
import random
import zipfile

import hypothesis
from hypothesis import strategies as st
import ml_dtypes
import numpy as np
import pytest
import torch

from tests.faults import weights_torch as forged
from vlguard_jax.checkpoints import state_pickle
from vlguard_jax.checkpoints import torch_files

EMPTY = b"\x80\x02}"  # PROTO, EMPTY_DICT


def load(data: bytes) -> dict[str, state_pickle.Strided]:
    return state_pickle.load(data, torch_files.STORAGES)


def written_by_torch(content: object, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, pickle_protocol=protocol)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_torch_writes(protocol: int) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    state = module.state_dict()  # an OrderedDict with the attribute _metadata
    assert state._metadata
    state["parameter"] = torch.nn.Parameter(torch.ones(5)[1:4])
    found = load(written_by_torch(state, protocol))
    assert list(found) == list(state)
    for name, tensor in state.items():
        strided = found[name]
        assert (strided.shape, strided.strides, strided.offset) == (
            tuple(tensor.shape),
            tensor.stride(),
            tensor.storage_offset(),
        )
        assert strided.storage.kind == "FloatStorage" and strided.storage.count == len(tensor.untyped_storage()) // 4


@pytest.mark.parametrize("kind", [*torch_files.STORAGES, "_utils", "ordered"])
def test_the_state_of_what_is_named_is_out_of_reach(kind: str) -> None:
    """BUILD calls __setstate__ or sets attributes: on numpy's types, which all share, it ended in a segmentation
    fault."""
    named = {"_utils": b"ctorch._utils\n_rebuild_tensor_v2\n", "ordered": b"ccollections\nOrderedDict\n"}
    target = named.get(kind, f"ctorch\n{kind}\n".encode())
    for state in (forged.value_of((3, "|", None, None, None, 1, 1, 0)), b"}(" + forged.text("__call__") + b"Nu"):
        with pytest.raises(state_pickle.RefusedError, match="damaged, or not written"):
            load(EMPTY + forged.text("w") + target + state + b"bs.")
    assert np.dtype(ml_dtypes.bfloat16).itemsize == 2 and np.ones(3, np.float16).nbytes == 6


def test_nothing_is_hashed_but_texts() -> None:
    """Sixty pairs of pairs are 60 objects and 2^60 of them to hash."""
    pairs = b"N" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    for key in (pairs, b"K\x01", b")", b"ctorch\nHalfStorage\n"):
        with pytest.raises(state_pickle.RefusedError, match="something else than a flat dict"):
            load(EMPTY + key + b"Ns.")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"Nr\xff\xff\xff\x7f0", "POP"),
        (b"\x8e" + b"\xff" * 8, "damaged"),  # BINBYTES8
        (b"\x8d" + b"\xff" * 8, "damaged"),  # BINUNICODE8
        (b"\x8b\xff\xff\xff\x7f", "damaged"),  # LONG4
        (b"I" + b"9" * 9000 + b"\n", "damaged"),
        (b"I1\n", "asks for INT"),
        (b"(iposix\nsystem\n", "asks for INST"),
        (b"ctorch\nDoubleTensor\n", "asks for torch.DoubleTensor and"),
        (forged.text("posix") + forged.text("system") + b"\x93", "asks for posix.system and"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)\x81", "asks for NEWOBJ"),
        (b"ctorch\nHalfStorage\n)R", "damaged"),
        (b"Q", "damaged"),
        (b"h\x07", "damaged"),
        (forged.text("w") + b"Ns" + forged.text("w") + b"Ns", "duplicate tensor w"),
        (forged.storage("0", "HalfStorage", True), "damaged"),
        (b"X\x03\0\0\0\xed\xa0\xbd" + b"Ns", "damaged"),  # half of a surrogate pair
    ],
)
def test_refuses_all_else(code: bytes, message: str) -> None:
    with pytest.raises(state_pickle.RefusedError, match=message):
        load(EMPTY + code + b".")


def test_refuses_numbers_that_stand_for_others() -> None:
    turned = torch.tensor([1 + 2j, 3 - 1j]).conj().imag
    assert turned.is_neg()
    with pytest.raises(state_pickle.RefusedError):
        load(written_by_torch({"w": turned}))
    whole = forged.sound(forged.ARRAYS["a.weight"], "0")
    assert load(EMPTY + forged.text("w") + whole[:-2] + b"}tRs.").keys() == {"w"}
    with pytest.raises(state_pickle.RefusedError, match="damaged"):
        load(EMPTY + forged.text("w") + whole[:-2] + b"}" + forged.text("neg") + b"\x88stRs.")


PIECES = [
    *(bytes([code]) for code in range(256)),
    *(f"c{module}\n{name}\n".encode() for module, name in forged.DANGEROUS[:4]),
    *(forged.value_of(value) for value in forged.ODD),
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ccollections\nOrderedDict\n)R",
    forged.storage("0", "HalfStorage", 12),
    *forged.state().values(),
]


@hypothesis.settings(max_examples=500, deadline=None)
@hypothesis.given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_any_program_is_read_or_refused(pieces: list[bytes]) -> None:
    check(EMPTY + b"".join(pieces) + b".")


@hypothesis.settings(max_examples=500, deadline=None)
@hypothesis.given(st.randoms(use_true_random=False))
def test_any_damage_is_read_or_refused(rng: random.Random) -> None:
    data = bytearray(WHOLE)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        data[at : at + rng.choice([0, 1, 1, 9])] = rng.choice([b"", rng.randbytes(1), rng.choice(PIECES)])
    check(bytes(data))


def check(data: bytes) -> None:
    try:
        found = load(data)
    except state_pickle.RefusedError:
        return
    for value in found.values():
        assert isinstance(value, state_pickle.Strided) and type(value.offset) is int
        assert all(type(n) is int for n in (*value.shape, *value.strides, value.storage.count))


WHOLE = written_by_torch(OrderedDict(a=torch.ones(3), b=torch.nn.Parameter(torch.zeros(2, 2))))


def test_reads_the_pickles_of_save_torch(tmp_path: pathlib.Path) -> None:
    found = load(torch_files._pickle_state(forged.ARRAYS))
    assert {name: t.shape for name, t in found.items()} == {name: a.shape for name, a in forged.ARRAYS.items()}
    with pytest.raises(state_pickle.RefusedError):
        load(pickle.dumps(object()))
