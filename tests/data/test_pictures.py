from __future__ import annotations

from concurrent import futures
import os
import pathlib
import pickle
import subprocess
import sys
import time
import zipfile

import pytest

from tests import source
from vlguard_jax import errors
from vlguard_jax.data import pictures
from vlguard_jax.data import zips

NAMES = ["a.jpg", "coco/train/1.jpg", "coco/train/2.jpg", "deep/er/still/é.png"]


def content(name: str) -> bytes:
    return f"content of {name} ".encode() * 200


def write_folder(top: pathlib.Path, names: list[str] = NAMES) -> str:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content(name))
    return str(top)


def write_zip(path: pathlib.Path, names: list[str], inside: str = "", compression: int = zipfile.ZIP_DEFLATED) -> str:
    """Members are named without `inside`, their content is that of the whole name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as file:
        for name in names:
            file.writestr(name, content(inside + name))
    return str(path)


def mixed(top: pathlib.Path) -> str:
    """Some pictures unpacked, some in archives at three depths."""
    write_folder(top, ["a.jpg"])
    write_zip(top / "coco" / "train.zip", ["train/1.jpg", "train/2.jpg"], "coco/")
    write_zip(top / "deep" / "x.ZIP", ["er/still/é.png"], "deep/", zipfile.ZIP_STORED)
    return str(top)


def in_memory(top: pathlib.Path, write) -> str:
    """The same files behind an fsspec address."""
    import fsspec

    address = f"memory://{top.parent.name}/{top.name}"
    fsspec.filesystem("memory").put(write(top), address, recursive=True)
    return address


STORES = {
    "folder": write_folder,
    "zip": lambda top: write_zip(top / "all.zip", NAMES),
    "stored zip": lambda top: write_zip(top / "all.zip", NAMES, compression=zipfile.ZIP_STORED),
    "mixed": mixed,
    "zip at the top": lambda top: str(pathlib.Path(write_zip(top / "all.zip", NAMES)).parent),
    "remote folder": lambda top: in_memory(top, write_folder),
    "remote mixed": lambda top: in_memory(top, mixed),
    "remote zip": lambda top: in_memory(top, lambda t: write_zip(t / "all.zip", NAMES)),
    "address of a local folder": lambda top: f"file://{write_folder(top)}",
}


@pytest.mark.parametrize("kind", STORES)
def test_read_and_missing(tmp_path, kind):
    store = pictures.open_store(STORES[kind](tmp_path / "pictures"))
    absent = ["coco/train/3.jpg", "no/such/folder.jpg", "b.jpg", "coco/train", "a.jpg/b.jpg"]
    for _ in range(2):  # a second time from what is remembered
        assert store.missing(NAMES) == []
        assert store.missing([*absent, *NAMES, *absent]) == absent
        for name in NAMES:
            assert store.read(name) == content(name)
            with store.open(name) as file:
                assert (file.read(3), file.tell()) == (content(name)[:3], 3)
        for name in absent:
            with pytest.raises(
                errors.UserError, match=rf"/{name}: no such picture \(picture of f: record 3\); check the picture folder, or"
            ):
                store.read(name, origin="f: record 3")


@pytest.mark.parametrize("kind", STORES)
def test_stamps_change_with_the_file(tmp_path, kind):
    store = pictures.open_store(STORES[kind](tmp_path / "pictures"))
    stamps = store.stamps([*NAMES, "no.jpg"])
    assert set(stamps) == set(NAMES) and all(stamps.values())
    assert pictures.open_store(store.location).stamps(NAMES) == stamps


def test_stamps_of_changed_files(tmp_path):
    store = pictures.open_store(write_folder(tmp_path))
    before = store.stamps(NAMES)
    os.utime(tmp_path / "a.jpg", ns=(0, 5))
    (tmp_path / NAMES[1]).write_bytes(b"longer" * 1000)
    after = store.stamps(NAMES)
    assert [name for name in NAMES if before[name] != after[name]] == NAMES[:2]


@pytest.mark.parametrize("kind", ["mixed", "remote folder", "zip"])
def test_names_with_detours(tmp_path, kind):
    store = pictures.open_store(STORES[kind](tmp_path / "pictures"))
    for name in ("./a.jpg", "coco//train/1.jpg", "coco/./train/1.jpg"):
        assert store.read(name) == content(str(pathlib.PurePosixPath(name)))
        assert store.missing([name]) == []


@pytest.mark.parametrize("kind", ["folder", "zip", "remote folder"])
@pytest.mark.parametrize("name", ["../a.jpg", "coco/../a.jpg", "coco/..", "/etc/passwd", "", ".", "a\0.jpg", "//a.jpg"])
def test_names_that_lead_out_are_refused(tmp_path, kind, name):
    store = pictures.open_store(STORES[kind](tmp_path / "pictures"))
    for call in (store.read, lambda name: store.missing([name]), lambda name: store.stamps([name])):
        with pytest.raises(errors.UserError, match=r"must be a path inside the picture folder$"):
            call(name)


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_real_file_wins_over_a_member(tmp_path, kind):
    def write(top: pathlib.Path) -> str:
        write_zip(top / "set.zip", ["set/1.jpg", "set/2.jpg"])
        (top / "set").mkdir()
        (top / "set" / "1.jpg").write_bytes(b"the real one")
        return str(top)

    store = pictures.open_store(write(tmp_path / "p") if kind == "local" else in_memory(tmp_path / "p", write))
    for _ in range(2):
        assert store.read("set/1.jpg") == b"the real one"
        assert store.read("set/2.jpg") == content("set/2.jpg")
    assert store.stamps(["set/1.jpg"])["set/1.jpg"].startswith("12 ")


def test_one_picture_in_two_archives(tmp_path):
    write_zip(tmp_path / "a.zip", ["set/1.jpg", "set/2.jpg"])
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("set/1.jpg", content("set/1.jpg"))
        file.writestr("set/2.jpg", b"another")
    store = pictures.open_store(str(tmp_path))
    assert store.read("set/1.jpg") == content("set/1.jpg")
    with pytest.raises(errors.UserError, match=r"^picture set/2\.jpg is in .*a\.zip and, another one, in .*b\.zip; move one of them away$"):
        store.read("set/2.jpg")


@pytest.mark.parametrize("kind", ["mixed", "zip", "folder"])
def test_stores_travel_and_are_shared(tmp_path, kind):
    """Pickled into another process, and read by many threads at once."""
    store = pictures.open_store(STORES[kind](tmp_path / "pictures"))
    assert store.read(NAMES[1]) == content(NAMES[1])
    with futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(pickle.loads(pickle.dumps(store)).read, NAMES * 100))
    assert found == [content(name) for name in NAMES] * 100
    script = "import pickle, sys; store = pickle.loads(sys.stdin.buffer.read()); sys.stdout.buffer.write(store.read('coco/train/2.jpg'))"
    done = subprocess.run([sys.executable, "-c", script], cwd=source.ROOT, input=pickle.dumps(store), capture_output=True)
    assert done.stdout == content(NAMES[2]), done.stderr


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("", r"^no place of pictures is named; give a folder or a zip file$"),
        ("no_such", r"^no_such: no such picture folder or zip file; check the path$"),
        ("memory://no_such/place", r"^memory://no_such/place: no such picture folder or zip file; check the path$"),
        ("abc://bucket/place", r"^abc://bucket/place: cannot be read: Protocol not known: abc$"),
    ],
)
def test_no_such_place(location, text):
    with pytest.raises(errors.UserError, match=text):
        pictures.open_store(location)


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(errors.UserError, match=r"^gs://bucket/place: cannot be read: [^\n]*gcsfs[^\n]*$"):
        pictures.open_store("gs://bucket/place")


def damage(path: pathlib.Path, kind: str) -> None:
    whole = path.read_bytes()
    end = whole.rindex(b"PK\5\6")
    if kind == "cut":
        whole = whole[: len(whole) // 2]
    elif kind == "no zip":
        whole = b"<html>not found</html>"
    elif kind == "empty":
        whole = b""
    elif kind == "directory":
        whole = whole.replace(b"PK\1\2", b"PK\1\3")
    elif kind == "count":
        whole = whole[: end + 10] + b"\x09\0" + whole[end + 12 :]
    elif kind == "front":
        whole = whole[end - 20 :]
    path.write_bytes(whole)


@pytest.mark.parametrize("kind", ["cut", "no zip", "empty", "directory", "count", "front"])
def test_broken_zip(tmp_path, kind):
    path = tmp_path / "in" / "set.zip"
    write_zip(path, NAMES)
    damage(path, kind)
    match = r"^[^\n]*set\.zip: not a whole zip file \([^\n]+\); download it again, or move it away$"
    with pytest.raises(errors.UserError, match=match):
        pictures.open_store(str(path))
    write_folder(tmp_path, ["in/real.jpg"])
    store = pictures.open_store(str(tmp_path))
    assert store.missing(["in/real.jpg"]) == [] and store.read("in/real.jpg")  # nobody asked for the archive
    for call in (store.read, lambda name: store.missing([name])):
        with pytest.raises(errors.UserError, match=match):
            call("in/a.jpg")


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


def test_many_remote_folders_are_listed_at_once(tmp_path, monkeypatch):
    names = [f"{i}/p.jpg" for i in range(20)]
    location = in_memory(tmp_path / "p", lambda top: write_folder(top, names))
    for limit in (5, 100):
        monkeypatch.setattr(pictures, "MANY_FOLDERS", limit)
        assert pictures.open_store(location).missing([*names, "7/q.jpg", "99/p.jpg"]) == ["7/q.jpg", "99/p.jpg"]


def test_no_look_at_single_files(tmp_path, monkeypatch):
    """`missing` lists the folders in question, once each."""
    location = write_folder(tmp_path, [f"{i % 3}/{i}.jpg" for i in range(60)] + ["other/1.jpg"])
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(os, "stat", lambda *_, **__: pytest.fail("a single file was looked up"))
    assert pictures.Store(location, pictures._Local(), location, is_zip=False).missing([f"{i % 3}/{i}.jpg" for i in range(60)]) == []
    assert sorted(listed) == [f"{location}/{i}" for i in range(3)]


def test_many_names(tmp_path):
    """Linear in the number of names: in seconds even with every call's types checked."""
    folder = tmp_path / "set"
    folder.mkdir()
    names = [f"set/{i:012d}.jpg" for i in range(20_000)]
    for name in names[::2]:
        (tmp_path / name).touch()
    write_zip(tmp_path / "x.zip", ["1.jpg"])
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        for name in names:
            file.writestr(name, b"")
    store = pictures.open_store(str(tmp_path))
    start = time.process_time()
    assert store.missing([*names, "set/no.jpg"]) == ["set/no.jpg"]
    assert time.process_time() - start < 10


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
