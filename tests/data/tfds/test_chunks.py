"""The walk through an ArrayRecord file: all that the library writes is sound, what would fill the memory is not."""

from __future__ import annotations

import pathlib
import random

from array_record.python import array_record_module
import pytest

from vlguard_jax.data.tfds import chunks


def write(path: pathlib.Path, records: list[bytes], options: str = "group_size:1") -> str:
    writer = array_record_module.ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return str(path)


@pytest.mark.parametrize("seed", range(6))
def test_files_of_any_sizes_are_sound(tmp_path: pathlib.Path, seed: int) -> None:
    rng = random.Random(seed)
    largest = rng.choice((10, 3000, 70_000, 300_000))
    records = [rng.randbytes(rng.randrange(largest)) for _ in range(rng.randrange(40))]
    chunks.check(write(tmp_path / "x", records, f"group_size:{rng.choice((1, 3))}"))


@pytest.mark.parametrize("size", [1 << 25, 1 << 29])
def test_what_would_fill_the_memory_is_not_unpacked(tmp_path: pathlib.Path, size: int) -> None:
    path = write(tmp_path / "x", [bytes(size)])
    assert pathlib.Path(path).stat().st_size < 200_000
    with pytest.raises(ValueError, match=rf"^{size:,} bytes packed in [\d,]+, which is more than a picture$"):
        chunks.check(path)


def test_files_that_are_cut_off(tmp_path: pathlib.Path) -> None:
    whole = pathlib.Path(write(tmp_path / "x", [b"a" * 100] * 3)).read_bytes()
    for length in (30, 70, 200, 65_600, len(whole) - 1):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"it is cut off|a chunk of kind"):
            chunks.check(str(tmp_path / "x"))


def test_transposed_records_are_not_those_of_prepare(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="a chunk of kind b't'"):
        chunks.check(write(tmp_path / "x", [b"a" * 100] * 3, "group_size:1,transpose"))
