"""Pictures inside tables: what pandas and pyarrow write is read back, and nothing is written under a foreign name."""

from __future__ import annotations

import base64
import io
import pathlib

from PIL import Image
import pyarrow
from pyarrow import parquet
import pytest

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.data import packed_pictures


def picture(shade: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade,) * 3).save(file, kind)
    return file.getvalue()


def write(path: pathlib.Path, **columns) -> pathlib.Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_rows_of_the_hubs_form(tmp_path):
    images = [{"bytes": picture(i), "path": "../../escaped.png"} for i in range(40)]
    path = write(tmp_path / "x.parquet", id=list(range(40)), question=[f"Ask {i}" for i in range(40)], image=images)
    rows = list(packed_pictures.read_parquet(path, ("id", "question"), picture=True))
    assert [row.texts for row in rows] == [{"id": str(i), "question": f"Ask {i}"} for i in range(40)]
    assert [row.picture for row in rows] == [picture(i) for i in range(40)]
    assert [row.origin for row in rows[:2]] == [f"{path}: row 0", f"{path}: row 1"]
    without = list(packed_pictures.read_parquet(path, ("question",), picture=False))
    assert len(without) == 40 and not any(row.picture for row in without)


def test_pictures_get_names_of_ours(tmp_path):
    for kind, extension in (("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp")):
        row = packed_pictures.from_base64(base64.b64encode(picture(7, kind)).decode(), "x.tsv: line 2")
        assert packed_pictures.save(row, tmp_path / "out", f"SD/Fraud/{kind}") == f"SD/Fraud/{kind}{extension}"
        assert (tmp_path / "out" / f"SD/Fraud/{kind}{extension}").read_bytes() == picture(7, kind)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a", "not base64"), ("not base64!", "not base64"), ("\u00fc", "not base64"), ("aaaa", "unknown")],
)
def test_what_is_no_picture(tmp_path, text, message):
    with pytest.raises(errors.UserError, match=rf"x\.tsv: line 2: its picture .*{message}"):
        packed_pictures.save(packed_pictures.from_base64(text, "x.tsv: line 2"), tmp_path, "a")
    assert not list(tmp_path.iterdir())


def read(path: pathlib.Path) -> list[packed_pictures.Packed]:
    return list(packed_pictures.read_parquet(path, ("id", "question"), picture=True))


def test_what_is_no_such_file(tmp_path):
    good = [{"bytes": picture(1), "path": None}]
    cases = [
        ({"id": ["1"], "question": ["a"]}, "no column 'image'; there are: id, question"),
        ({"id": ["1"], "qestion": ["a"], "image": good}, r"no column 'question'; did you mean 'qestion'\?"),
        ({"id": ["1"], "question": [None], "image": good}, r"x\.parquet: row 0: 'question' is empty or not a text"),
        ({"id": [1.5], "question": ["a"], "image": good}, "row 0: 'id' is empty or not a text"),
        ({"id": ["1"], "question": ["a"], "image": ["x"]}, "row 0: 'image' holds no picture"),
        ({"id": ["1"], "question": ["a"], "image": [{"bytes": None, "path": "/etc/passwd"}]}, "holds no picture"),
    ]
    for columns, message in cases:
        with pytest.raises(errors.UserError, match=message):
            read(write(tmp_path / "x.parquet", **columns))
    with pytest.raises(errors.UserError, match="no such file"):
        read(tmp_path / "none.parquet")


def test_damage_is_one_line(tmp_path):
    path = write(tmp_path / "x.parquet", id=["1"], question=["a"], image=[{"bytes": picture(1), "path": "a"}])
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], whole[:4] + bytes(len(whole) - 12) + whole[-8:]):
        path.write_bytes(content)
        with pytest.raises(errors.UserError, match=r"x\.parquet: not a whole Parquet file .*download the file again"):
            read(path)


def test_a_file_that_unpacks_to_too_much(tmp_path, monkeypatch):
    """A megabyte of one letter takes a few bytes."""
    path = write(tmp_path / "x.parquet", id=["1"], question=["a" * (1 << 20)], image=[{"bytes": b"", "path": "a"}])
    assert path.stat().st_size < 1 << 18
    monkeypatch.setattr(limits, "PARQUET_BYTES", 1 << 19)
    with pytest.raises(errors.UserError, match=r"would be 1,0\d\d,\d\d\d bytes in 1 rows, at most 524,288"):
        read(path)
