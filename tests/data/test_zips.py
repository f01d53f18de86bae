"""The reader of archives by itself; what a store makes of archives is in test_pictures.py."""

from __future__ import annotations

import os
import pathlib
import zipfile

import pytest

from tests.data.test_pictures import NAMES
from tests.data.test_pictures import content
from tests.data.test_pictures import write_zip
from vlguard_jax import errors
from vlguard_jax.data import pictures
from vlguard_jax.data import zips


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_member(tmp_path, compression):
    path = tmp_path / "set.zip"
    write_zip(path, NAMES, compression=compression)
    whole = path.read_bytes()
    at = zipfile.ZipFile(path).getinfo(NAMES[1]).header_offset
    for place in (at, at + 30 + len(NAMES[1]) + 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        store = pictures.open_store(str(path))
        assert store.read(NAMES[0]) == content(NAMES[0])
        with pytest.raises(errors.UserError, match=rf"^[^\n]*set\.zip: member {NAMES[1]} is damaged \(.*\); download the archive again$"):
            store.read(NAMES[1])


def test_uncommon_members(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, ["a.jpg"], compression=zipfile.ZIP_LZMA)
    with pytest.raises(errors.UserError, match=r": member a\.jpg is compressed by method 14; pack the archive again with plain zip$"):
        pictures.open_store(str(path)).read("a.jpg")
    write_zip(path, ["a.jpg"])
    whole = bytearray(path.read_bytes())
    whole[whole.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(whole)
    with pytest.raises(errors.UserError, match=r": member a\.jpg is encrypted; pack the archive again with plain zip$"):
        pictures.open_store(str(path)).read("a.jpg")


def test_zip_of_more_than_4_gb(tmp_path, monkeypatch):
    """Zip64 records, which archives get above 4 GB: forced here by lowering the library's limits."""
    for name in ("ZIP64_LIMIT", "ZIP_FILECOUNT_LIMIT"):
        monkeypatch.setattr(zipfile, name, 1)
    path = write_zip(tmp_path / "set.zip", NAMES)
    assert b"PK\6\6" in pathlib.Path(path).read_bytes()
    store = pictures.open_store(path)
    assert [store.read(name) for name in NAMES] == [content(name) for name in NAMES]


def test_archive_with_something_around_it(tmp_path):
    """A self-extracting head and a comment; empty files, folders, and a name written twice, of which the later one counts."""
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.mkdir("folder")
        file.writestr("folder/empty.jpg", b"")
        file.writestr("twice.jpg", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("twice.jpg", b"second")
        file.comment = b"a comment"
    path.write_bytes(b"#!/bin/sh\n" * 100 + path.read_bytes())
    store = pictures.open_store(str(path))
    assert store.read("folder/empty.jpg") == b"" and store.read("twice.jpg") == b"second"
    assert store.missing(["folder", "folder/"][:1]) == ["folder"]


def test_names_that_are_not_marked_as_utf8(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, ["XY.jpg"])
    path.write_bytes(path.read_bytes().replace(b"XY.jpg", "é.jpg".encode()))
    assert pictures.open_store(str(path)).read("é.jpg") == content("XY.jpg")
    path.write_bytes(path.read_bytes().replace("é.jpg".encode(), b"X\x82.jpg"))
    assert pictures.open_store(str(path)).read("Xé.jpg") == content("XY.jpg")


def test_a_long_extra_field_takes_a_second_read(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo("a.jpg")
        info.extra = b"\xfe\xca" + (2000).to_bytes(2, "little") + b"x" * 2000
        file.writestr(info, content("a.jpg"))
    assert pictures.open_store(str(path)).read("a.jpg") == content("a.jpg")


def test_every_member_as_the_standard_library_reads_it(tmp_path):
    names = [f"{i % 7}/{i}.bin" for i in range(300)]
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        for i, name in enumerate(names):
            file.writestr(name, os.urandom(i * 37), [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED][i % 2])
    store = pictures.open_store(str(path))
    with zipfile.ZipFile(path) as file:
        assert all(store.read(name) == file.read(name) for name in names)


def test_archive_reads_only_what_it_needs(tmp_path):
    path = pathlib.Path(write_zip(tmp_path / "set.zip", [f"{i}.jpg" for i in range(2000)], compression=zipfile.ZIP_STORED))
    whole, reads = path.read_bytes(), []

    def read(first: int, n: int) -> bytes:
        reads.append(n)
        return whole[first : first + n]

    archive = zips.Archive("x", len(whole), read)
    reads.clear()
    assert archive.read("7.jpg") == content("7.jpg")
    assert len(reads) == 1 and reads[0] < len(content("7.jpg")) + 500
