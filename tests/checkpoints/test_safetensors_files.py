"""Files written a tensor at a time have the very bytes that the format's own library writes."""

from __future__ import annotations

import pathlib
import tempfile
import weakref

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from vlguard_jax.checkpoints import safetensors_files

DTYPES = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
ARRAYS = st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=4))


def entries(arrays: dict[str, np.ndarray]) -> list[safetensors_files.Entry]:
    return [
        safetensors_files.Entry(name, value.shape, value.dtype, lambda value=value: value)
        for name, value in arrays.items()
    ]


@settings(max_examples=150)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), ARRAYS, min_size=1))
def test_the_bytes_are_those_of_the_library(drawn: dict[str, tuple[type, list[int]]]) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: np.asarray(rng.normal(size=shape)).astype(dtype) for name, (dtype, shape) in drawn.items()}
    arrays.pop("__metadata__", None)
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = pathlib.Path(name, "ours"), pathlib.Path(name, "theirs")
        safetensors.numpy.save_file(arrays, theirs, metadata={"format": "pt"})
        safetensors_files.save(ours, entries(arrays))
        assert ours.read_bytes() == theirs.read_bytes()


def test_one_tensor_is_in_memory_at_a_time(tmp_path: pathlib.Path) -> None:
    alive: list[weakref.ref] = []

    def read() -> np.ndarray:
        assert not any(before() is not None for before in alive)
        made = np.ones((300, 200), np.float32)
        alive.append(weakref.ref(made))
        return made.T  # not as it is stored, too

    shape = (200, 300)
    safetensors_files.save(
        tmp_path / "a", [safetensors_files.Entry(name, shape, np.dtype(np.float32), read) for name in "cab"]
    )
    assert len(alive) == 3 and list(safetensors.numpy.load_file(tmp_path / "a")) == ["a", "b", "c"]


@pytest.mark.parametrize("other", [np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float16)])
def test_another_array_than_was_announced_is_a_fault(tmp_path: pathlib.Path, other: np.ndarray) -> None:
    entry = safetensors_files.Entry("a", (2, 3), np.dtype(np.float32), lambda: other)
    with pytest.raises(ValueError, match=r"a: .* was announced"):
        safetensors_files.save(tmp_path / "a", [entry])


def test_nothing_is_replaced(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(FileExistsError):
        safetensors_files.save(tmp_path / "a", entries({"a": np.zeros(1)}))
    assert (tmp_path / "a").read_text() == "before"


def test_shards_keep_the_order() -> None:
    sizes = [3, 4, 9, 1, 1, 1]
    given = entries({str(i): np.zeros(size, np.float16) for i, size in enumerate(sizes)})
    found = safetensors_files.shards(given, 14)
    assert [[entry.name for entry in shard] for shard in found] == [["0", "1"], ["2"], ["3", "4", "5"]]
    assert safetensors_files.shards([], 14) == [[]]
    assert [entry.size for entry in given] == [6, 8, 18, 2, 2, 2]
