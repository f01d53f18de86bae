from __future__ import annotations

import collections
from concurrent import futures
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import pytest

from tests import source
from vlguard_jax import errors
from vlguard_jax.data import pictures

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
                errors.UserError,
                match=rf"/{name}: no such picture \(picture of f: record 3\); check the picture folder(; [^\n]*)?$",
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
    with pytest.raises(
        errors.UserError,
        match=r"^picture set/2\.jpg is in .*a\.zip and, another one, in .*b\.zip; move one of them away$",
    ):
        store.read("set/2.jpg")


@pytest.mark.parametrize("kind", ["mixed", "zip", "folder"])
def test_stores_travel_and_are_shared(tmp_path, kind):
    """Pickled into another process, and read by many threads at once."""
    store = pictures.open_store(STORES[kind](tmp_path / "pictures"))
    assert store.read(NAMES[1]) == content(NAMES[1])
    with futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(pickle.loads(pickle.dumps(store)).read, NAMES * 100))
    assert found == [content(name) for name in NAMES] * 100
    script = (
        "import pickle, sys; store = pickle.loads(sys.stdin.buffer.read());"
        " sys.stdout.buffer.write(store.read('coco/train/2.jpg'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=source.ROOT, input=pickle.dumps(store), capture_output=True
    )
    assert done.stdout == content(NAMES[2]), done.stderr


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("", r"^no picture folder is named; give a folder or a zip file$"),
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
    if kind == "no zip":
        match = (
            r"^[^\n]*set\.zip: not a zip file: this is a web page, perhaps of a login or an error, instead of"
            r" the file; download "
        )
    with pytest.raises(errors.UserError, match=match):
        pictures.open_store(str(path))
    write_folder(tmp_path, ["in/real.jpg"])
    store = pictures.open_store(str(tmp_path))
    assert store.missing(["in/real.jpg"]) == [] and store.read("in/real.jpg")  # nobody asked for the archive
    for call in (store.read, lambda name: store.missing([name])):
        with pytest.raises(errors.UserError, match=match):
            call("in/a.jpg")


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
    look = os.stat
    monkeypatch.setattr(
        os,
        "stat",
        lambda path, **how: (
            pytest.fail("a single file was looked up") if str(path).startswith(location) else look(path, **how)
        ),
    )
    assert (
        pictures.Store(location, pictures._Local(), location, is_zip=False).missing(
            [f"{i % 3}/{i}.jpg" for i in range(60)]
        )
        == []
    )
    assert sorted(listed) == [f"{location}/{i}" for i in range(3)]


def test_many_names(tmp_path):
    """Four times the names, four times the calls: linear in their number."""
    folder = tmp_path / "set"
    folder.mkdir()
    names = [f"set/{i:012d}.jpg" for i in range(4_000)]
    for name in names[::2]:
        (tmp_path / name).touch()
    write_zip(tmp_path / "x.zip", ["1.jpg"])
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        for name in names:
            file.writestr(name, b"")
    counted = []
    for number in (1_000, 4_000):
        store = pictures.open_store(str(tmp_path))
        assert store.missing(["a.jpg"]) == ["a.jpg"]
        store.missing(names[:1])  # reads the archive
        calls = collections.Counter()
        sys.setprofile(lambda frame, event, argument, calls=calls: calls.update([event]))
        try:
            found = store.missing([*names[:number], "set/no.jpg"])
        finally:
            sys.setprofile(None)
        assert found == ["set/no.jpg"]
        counted.append(calls.total())
    assert counted[0] > 1_000 and counted[1] < 5 * counted[0]


@pytest.mark.parametrize(
    ("member", "wanted", "message"),
    [
        ("VLGuard/train/a.jpg", "train/a.jpg", "set.zip holds 'VLGuard/train/a.jpg'"),
        ("a.jpg", "train/a.jpg", "set.zip holds 'a.jpg'"),
        ("train/a.JPG", "train/a.jpg", "set.zip holds 'train/a.JPG'"),
        ("train/a.jpeg", "train/a.jpg", "set.zip holds 'train/a.jpeg'"),
        ("train/cafe\u0301.jpg", "train/caf\u00e9.jpg", "set.zip holds 'train/cafe\u0301.jpg'"),
        ("images/x.jpg", "train/a.jpg", "set.zip holds 'images/x.jpg', for example"),
    ],
)
def test_what_is_in_an_archive_is_named(tmp_path, member, wanted, message):
    """The likeliest member, never one of macOS's notes."""
    write_zip(
        tmp_path / "set.zip", ["__MACOSX/train/._a.jpg", "__MACOSX/a.jpg", "train/.DS_Store", member, "zzz/y.jpg"]
    )
    for place in (tmp_path / "set.zip", tmp_path):
        store = pictures.open_store(str(place))
        assert store.missing([wanted]) == [wanted]
        with pytest.raises(errors.UserError) as e:
            store.read(wanted)
        assert str(e.value) == f"{place}/{wanted}: no such picture; check the picture folder; {tmp_path}/{message}"


@pytest.mark.parametrize("kind", ["folder", "remote folder"])
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("A.jpg", "a.jpg"),
        ("a.png", "a.jpg"),
        ("Coco/train/1.jpg", "coco"),
        ("coco/train/1.JPG", "coco/train/1.jpg"),
        ("x/y.jpg", ""),
    ],
)
def test_what_is_in_a_folder_is_named(tmp_path, kind, wanted, found):
    store = pictures.open_store(STORES[kind](tmp_path / "pictures"))
    assert store.near(wanted) == (f"; there is {found!r}" if found else "")


def test_notes_of_macos_are_no_archives(tmp_path):
    write_zip(tmp_path / "train.zip", ["train/a.jpg"])
    (tmp_path / "._train.zip").write_bytes(b"\0\5\x16\7 a note")
    assert pictures.open_store(str(tmp_path)).read("train/a.jpg") == content("train/a.jpg")


def test_a_link_to_itself_hides_no_other_picture(tmp_path):
    store = pictures.open_store(write_folder(tmp_path))
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert store.missing([*NAMES, "loop.jpg"]) == ["loop.jpg"] and list(store.stamps(["a.jpg"])) == ["a.jpg"]
