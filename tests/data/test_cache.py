"""What comes out of the cache is what went in, or nothing; and nobody else writes there unasked."""

from __future__ import annotations

import io
import os
import pathlib
import stat
import zipfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from vlguard_jax import errors
from vlguard_jax.data import cache

KEY, OTHER = "0" * 63 + "1", "f" * 64


def test_an_entry_comes_back_under_its_own_name_alone(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "new" / "cache"
    assert cache.load(folder, "index", KEY) is None
    for content in (b"", b"old", b"new" * 1000):
        cache.save(folder, "index", KEY, content)
        assert cache.load(folder, "index", KEY) == content
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    entry = folder / "index" / KEY
    for kind, key in (("index", OTHER), ("plans", KEY)):  # swapped
        (folder / kind).mkdir(exist_ok=True)
        (folder / kind / key).write_bytes(entry.read_bytes())
        assert cache.load(folder, kind, key) is None


@pytest.mark.parametrize("key", ["../" * 21 + "x", "", "A" * 64, "0" * 63, "0" * 64 + "\n", "/etc/passwd"])
def test_no_other_names(tmp_path: pathlib.Path, key: str) -> None:
    for use in (lambda: cache.load(tmp_path, "index", key), lambda: cache.save(tmp_path, "index", key, b"")):
        with pytest.raises(ValueError, match="is not a key of the cache"):
            use()


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.binary(max_size=200), st.data())
def test_what_was_changed_is_not_there(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "changed"
    cache.save(folder, "index", KEY, content)
    entry = folder / "index" / KEY
    stored = bytearray(entry.read_bytes())
    if data.draw(st.booleans()):
        stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del stored[data.draw(st.integers(0, len(stored) - 1)) :]
    entry.write_bytes(stored)
    assert cache.load(folder, "index", KEY) is None and cache.load_arrays(folder, "index", KEY) is None


def test_links_pipes_and_folders_are_no_entries(tmp_path: pathlib.Path) -> None:
    folder, outside = tmp_path / "cache", tmp_path / "outside"
    cache.save(folder, "index", KEY, b"content")
    entry = folder / "index" / KEY
    entry.rename(outside)
    for make in (
        lambda: entry.symlink_to(outside),
        lambda: os.mkfifo(entry),
        entry.mkdir,
        lambda: entry.symlink_to("/dev/zero"),
    ):
        make()
        assert cache.load(folder, "index", KEY) is None
        entry.rmdir() if entry.is_dir() else entry.unlink()
    entry.symlink_to(outside)
    cache.save(folder, "index", KEY, b"new")
    assert (
        outside.read_bytes().endswith(b"content")
        and cache.load(folder, "index", KEY) == b"new"
        and not entry.is_symlink()
    )
    (folder / "plans").symlink_to(tmp_path)
    for use in (lambda: cache.load(folder, "plans", KEY), lambda: cache.save(folder, "plans", KEY, b"")):
        with pytest.raises(errors.UserError, match="plans is a link, which the cache does not follow; remove it"):
            use()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "outside"]


def test_arrays_that_are_forged_with_a_right_hash(tmp_path: pathlib.Path) -> None:
    """Objects would be unpickled, and packed ones be larger than the file."""
    pickled, packed, huge = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(pickled, a=np.array([{}], dtype=object))
    np.savez_compressed(packed, a=np.zeros(10**6))
    with zipfile.ZipFile(huge, "w") as archive:
        header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904,), }".ljust(117) + b"\n"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    for content in (pickled.getvalue(), packed.getvalue(), huge.getvalue(), b"", b"PK\3\4"):
        cache.save(tmp_path, "index", KEY, content)
        assert cache.load_arrays(tmp_path, "index", KEY) is None
    cache.save_arrays(tmp_path, "index", KEY, {"a": np.arange(3)})
    np.testing.assert_array_equal((cache.load_arrays(tmp_path, "index", KEY) or {})["a"], np.arange(3))


def test_where_it_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.folder("here") == pathlib.Path("here")
    monkeypatch.setenv("VLGUARD_CACHE", str(tmp_path / "named"))
    assert cache.folder("") == tmp_path / "named"
    monkeypatch.delenv("VLGUARD_CACHE")
    for value in (str(tmp_path), "relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        above = tmp_path if value == str(tmp_path) else pathlib.Path.home() / ".cache"
        assert cache.folder("") == above / "vlguard_jax"


def test_who_may_write_there(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("VLGUARD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "_TOLD", set())
    own = tmp_path / "vlguard_jax"
    own.mkdir()
    own.chmod(0o775)
    assert cache.folder("") == own and stat.S_IMODE(own.stat().st_mode) == 0o700  # as an earlier version made it
    own.chmod(0o777)
    for named in ("", str(own)):
        with pytest.raises(
            errors.UserError, match=r"can be written to by everyone; remove that permission \(chmod o-w\), or name"
        ):
            cache.folder(named)
    own.chmod(0o775)
    assert not caplog.messages
    assert cache.folder(str(own)) == cache.folder(str(own)) == own
    assert [message.split(" vlguard_jax")[0] for message in caplog.messages] == [
        f"the cache {own} can be written to by its group: what they write there is trusted"
    ]
    monkeypatch.setattr(os, "geteuid", lambda: own.stat().st_uid + 1)
    other = os.stat(own).st_uid or os.getuid()
    if other:  # root's are everybody's
        with pytest.raises(errors.UserError, match="is another user's; name another with"):
            cache.folder("")
    (tmp_path / "file").touch()
    with pytest.raises(errors.UserError, match="file is not a folder"):
        cache.folder(str(tmp_path / "file"))
