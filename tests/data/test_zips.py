"""The reader of archives by itself; what a store makes of archives is in test_pictures.py."""

from __future__ import annotations

import io
import os
import pathlib
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.data.test_pictures import NAMES
from tests.data.test_pictures import content
from tests.data.test_pictures import write_zip
from vlguard_jax import errors
from vlguard_jax import limits
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
        with pytest.raises(
            errors.UserError,
            match=rf"^[^\n]*set\.zip: member {NAMES[1]} is damaged \(.*\); download the archive again$",
        ):
            store.read(NAMES[1])


def test_uncommon_members(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, ["a.jpg"], compression=zipfile.ZIP_LZMA)
    with pytest.raises(
        errors.UserError, match=r": member a\.jpg is compressed by method 14; pack the archive again with plain zip$"
    ):
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
    """A self-extracting head and a comment; empty files, folders, and a name written twice, of which the later one
    counts."""
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
    path = pathlib.Path(
        write_zip(tmp_path / "set.zip", [f"{i}.jpg" for i in range(2000)], compression=zipfile.ZIP_STORED)
    )
    whole, reads = path.read_bytes(), []

    def read(first: int, n: int) -> bytes:
        reads.append(n)
        return whole[first : first + n]

    archive = zips.Archive("x", len(whole), read)
    reads.clear()
    assert archive.read("7.jpg") == content("7.jpg")
    assert len(reads) == 1 and reads[0] < len(content("7.jpg")) + 500


def packed(names: list[tuple[bytes, bytes]], host: int) -> bytes:
    """An archive that spells the members' names in these bytes and has these extra fields; each member holds its
    number."""
    out, infos = io.BytesIO(), []
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as file:
        warnings.simplefilter("ignore")  # of names that are the same before they are respelled
        for i, (name, extra) in enumerate(names):
            infos.append(zipfile.ZipInfo("x" * len(name)))
            infos[-1].extra, infos[-1].create_system = extra, host
            file.writestr(infos[-1], str(i))
    data = bytearray(out.getvalue())
    at = file.start_dir
    for info, (name, extra) in zip(infos, names, strict=True):
        for begin in (info.header_offset + 30, at + 46):
            data[begin : begin + len(name)] = name
        at += 46 + len(name) + len(extra)
    return bytes(data)


def write_as(path: pathlib.Path, names: list[tuple[bytes, bytes]], host: int) -> str:
    """The archive `packed`."""
    path.write_bytes(packed(names, host))
    return str(path)


def opened(data: bytes) -> zips.Archive:
    """An archive in memory."""
    return zips.Archive("set.zip", len(data), lambda first, n: data[first : first + n])


def unicode_path(name: bytes, text: str, *, fits: bool = True) -> bytes:
    """The extra field that gives a member a name in UTF-8, if the checksum of its name fits."""
    field = b"\1" + (zlib.crc32(name) ^ (not fits)).to_bytes(4, "little") + text.encode()
    return b"\x75\x70" + len(field).to_bytes(2, "little") + field


FAT, UNIX = 0, 3
NAMED = {
    "Windows tools": (FAT, b"train\\a.jpg", b"", "train/a.jpg"),
    "a backslash that is part of a name": (UNIX, b"train\\a.jpg", b"", "train/a.jpg"),
    "a detour": (UNIX, b"./train/./a.jpg", b"", "train/a.jpg"),
    "Windows detour": (FAT, b".\\train\\a.jpg", b"", "train/a.jpg"),
    "from the root": (UNIX, b"/train/a.jpg", b"", "train/a.jpg"),
    "doubled": (UNIX, b"train//a.jpg", b"", "train/a.jpg"),
    "out of the folder": (UNIX, b"../../train/a.jpg", b"", "train/a.jpg"),
    "a folder more": (UNIX, b"VLGuard/train/a.jpg", b"", "VLGuard/train/a.jpg"),
    "code page 437": (FAT, b"caf\x82.jpg", b"", "café.jpg"),
    "UTF-8 without a mark": (UNIX, "漢.jpg".encode(), b"", "漢.jpg"),
    "Unicode path": (FAT, b"caf_.jpg", unicode_path(b"caf_.jpg", "café.jpg"), "café.jpg"),
    "Unicode path behind another field": (
        FAT,
        b"_.jpg",
        b"UT\2\0ab" + unicode_path(b"_.jpg", "train\\漢.jpg"),
        "train/漢.jpg",
    ),
    "Unicode path of another name": (FAT, b"caf_.jpg", unicode_path(b"caf_.jpg", "x.jpg", fits=False), "caf_.jpg"),
}


@pytest.mark.parametrize("case", NAMED)
def test_members_are_called_as_unpacked(tmp_path, case):
    host, name, extra, expected = NAMED[case]
    store = pictures.open_store(write_as(tmp_path / "set.zip", [(b"y.jpg", b""), (name, extra), (b"z.jpg", b"")], host))
    assert [store.read(n) for n in ("y.jpg", expected, "z.jpg")] == [b"0", b"1", b"2"]
    assert store.missing(["y.jpg", expected]) == []


def test_folders_notes_and_doubles(tmp_path):
    names = [b"train\\", b"train/", b"__MACOSX/train/._a.jpg", b"train/.DS_Store", b"train/a.jpg", b"./train/a.jpg"]
    store = pictures.open_store(write_as(tmp_path / "set.zip", [(name, b"") for name in names], FAT))
    assert store.read("train/a.jpg") == b"5" and store.missing(["train"]) == ["train"]
    # what is called so wins over what is read so
    names = [b"train/b.jpg", b"train\\b.jpg"]
    store = pictures.open_store(write_as(tmp_path / "two.zip", [(name, b"") for name in names], UNIX))
    assert store.read("train/b.jpg") == b"0"


part = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=5)
odd = st.lists(part | st.sampled_from(["", ".", ".."]), min_size=1, max_size=4)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    st.lists(st.tuples(odd, st.sampled_from("/\\")), min_size=1, max_size=4), st.sampled_from([FAT, UNIX])
)
def test_any_name_is_inside_the_folder(made, host):
    archive = opened(packed([(separator.join(parts).encode() or b".", b"") for parts, separator in made], host))
    for name in archive.names:
        assert not {"", ".", ".."} & set(name.split("/")) and "\\" not in name
        assert int(archive.read(name)) < len(made)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=12), st.binary(max_size=12)), min_size=1, max_size=3)
)
def test_any_bytes_of_a_name_are_read_or_refused(names):
    try:
        archive = opened(packed(names, FAT))
    except errors.UserError as e:
        assert str(e).startswith("set.zip: ")
        return
    pictures.similar("a.jpg", archive.names).encode()
    for name in archive.names:
        archive.read(name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"a.jpg" + b"\0" * 252 + b"ustar\0" + b"0" * 2000,
            r"not a zip file: this is a tar archive; unpack it and name what is inside, or move",
        ),
        (b"Rar!\x1a\x07\x01\0" + b"0" * 200, r"not a zip file: this is a rar archive; unpack it"),
        (b"7z\xbc\xaf\x27\x1c" + b"0" * 200, r"not a zip file: this is a 7z archive; unpack it"),
        (b"\x1f\x8b\x08" + b"0" * 200, r"not a zip file: this is a gzip file; unpack it"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            r"not a zip file: this is a git-lfs pointer instead of the file; fetch the file",
        ),
        (b"<!DOCTYPE html>\n<html>", r"not a zip file: this is a web page, perhaps of a login"),
        (b"PK\3\4" + b"0" * 200, r"not a whole zip file \(it has no end record\); download it again, or move it away"),
        (b"", r"not a whole zip file \(it has no end record\); download it again, or move it away"),
    ],
)
def test_other_files_named_zip(tmp_path, data, message):
    (tmp_path / "set.zip").write_bytes(data)
    for place in (tmp_path / "set.zip", tmp_path):
        with pytest.raises(errors.UserError, match=rf"^[^\n]*set\.zip: {message}"):
            pictures.open_store(str(place)).read("a.jpg")


def claiming(
    path: pathlib.Path, length: int, stored: bytes, *, wide: tuple[int, int, int] | None = None
) -> pictures.Store:
    """An archive of one deflated member `a.jpg` whose directory gives this unpacked size, or these 64-bit numbers."""
    head = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 0, 0, len(stored), length, 5, 0)
    extra = b"" if wide is None else struct.pack("<HHQQQ", 1, 24, *wide)
    sizes = (len(stored), length) if wide is None else (0xFFFFFFFF, 0xFFFFFFFF)
    entry = b"PK\1\2" + struct.pack("<HHHHHHLLLHH", 20, 20, 0, 8, 0, 0, 0, *sizes, 5, len(extra))
    entry += struct.pack("<HHHLL", 0, 0, 0, 0, 0 if wide is None else 0xFFFFFFFF) + b"a.jpg" + extra
    local = b"PK\3\4" + head + b"a.jpg" + stored
    path.write_bytes(local + entry + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(entry), len(local), 0))
    return pictures.open_store(str(path))


@pytest.mark.parametrize(
    ("length", "stored", "message"),
    [
        (0xFFFFFFFE, b"\3\0", r"would be 4,294,967,294 bytes, packed in 2; at most 268,435,456 and"),
        ((1 << 28) + 1, bytes(1 << 22), r"would be 268,435,457 bytes"),
        (
            1 << 28,
            bytes(1000),
            r"would be 268,435,456 bytes, packed in 1,000; .* of big ones, 200 times the packed size are read",
        ),
    ],
)
def test_sizes_are_looked_at_before_memory_is_taken(tmp_path, length, stored, message):
    store = claiming(tmp_path / "set.zip", length, stored)
    tracemalloc.start()
    with pytest.raises(errors.UserError, match=rf"set\.zip: member a\.jpg {message}"):
        store.read("a.jpg")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "wide", [(9, 1 << 63, 0), (9, 2, 1 << 63), (9, (1 << 64) - 1, (1 << 64) - 1), (9, 1 << 40, 0), (1 << 63, 2, 0)]
)
def test_64_bit_sizes_beyond_the_file(tmp_path, wide):
    store = claiming(tmp_path / "set.zip", 9, b"\3\0", wide=wide)
    with pytest.raises(
        errors.UserError,
        match=r"set\.zip: member a\.jpg (is damaged \(it is beyond the archive's end\)|would be 9,223)",
    ):
        store.read("a.jpg")


def test_more_packed_bytes_than_a_picture_has_are_not_read(tmp_path):
    """In a large archive a member can claim all of it."""
    path = tmp_path / "set.zip"
    claiming(path, 9, b"\3\0", wide=(9, 1 << 29, 0))
    data = path.read_bytes()
    at, end, hole = data.index(b"PK\1\2"), data.rindex(b"PK\5\6"), 1 << 30
    with open(path, "r+b") as file:
        file.seek(hole)
        file.write(data[at:end] + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, end - at, hole, 0))
    with pytest.raises(
        errors.UserError, match=r"member a\.jpg is damaged \(it would take 536,870,912 packed bytes, at most 268,"
    ):
        pictures.open_store(str(path)).read("a.jpg")


def test_an_end_record_beyond_the_file(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, NAMES)
    data = path.read_bytes()
    at = data.rindex(b"PK\5\6")
    path.write_bytes(data[:at] + struct.pack("<4sLQL", b"PK\6\7", 0, 1 << 63, 1) + data[at:])
    with pytest.raises(errors.UserError, match=r"set\.zip: not a whole zip file \(its Zip64 end record is missing\)"):
        pictures.open_store(str(path))


def test_a_directory_beyond_all_measure_is_not_read(tmp_path, monkeypatch):
    write_zip(tmp_path / "set.zip", NAMES)
    monkeypatch.setattr(limits, "PICTURES_DIRECTORY_BYTES", 50)
    with pytest.raises(
        errors.UserError, match=r"set\.zip: not a whole zip file \(its directory has \d+ bytes, at most 50 are read\)"
    ):
        pictures.open_store(str(tmp_path / "set.zip"))
