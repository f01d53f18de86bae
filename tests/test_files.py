"""Files that others wrote: one clear line for each way in which they can be wrong.

Files of ours: whole or not at all.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import stat
from unittest import mock

import hypothesis
from hypothesis import strategies as st
import pytest

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import machine

CUT = "a cut emoji, or bytes that are not UTF-8; correct the text"
TAR = b"a.json" + b"\0" * 251 + b"ustar\0" + b"0" * 249


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty; get it again"),
        (b" \n", "the file is empty; get it again"),
        (b'{"a": 1,\n "b" 2}', "broken JSON at line 2, column 6: Expecting ':' delimiter"),
        (b'{"a": "\xe9"}', "not UTF-8 text at byte 7; save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "this is UTF-16 text; save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "this is UTF-16 text; save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16-be"), "this is UTF-16 text; save it as UTF-8"),
        ('{"a": 1}'.encode("utf-32"), "this is UTF-32 text; save it as UTF-8"),
        (b"[" * 100_000, "broken JSON: nested too deeply"),
        (b'{"a": ' * 100_000, "broken JSON: nested too deeply"),
        (b"[" * 101 + b"]" * 101, "broken JSON: nested too deeply (more than 100 levels)"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "broken JSON: nested too deeply (more than 100 levels)"),
        (b"[" + b"[]," * 1_100_000 + b"1]", "more than 2,097,152 values in one document; is it the right file?"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of more than 4,300 digits; correct it"),
        (b'{"a": {"eps": 1e-5, "b": 0, "eps": 1e-6}}', "an object has two values for 'eps'; leave one"),
        (b'{"a": 1, "a": true}', "an object has two values for 'a'; leave one"),
        (b'{"a": NaN}', "'NaN' is not a finite number; correct it"),
        (b'{"a": [-Infinity]}', "'-Infinity' is not a finite number; correct it"),
        (b'{"a": 1e999}', "'1e999' is not a finite number; correct it"),
        (b"[1]", "must hold a JSON object, not a list"),
        (b"[]", "must hold a JSON object, not an empty list"),
        (b"null", "must hold a JSON object, not null"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n",
            "this is a git-lfs pointer instead of the file; fetch the file itself with `git lfs pull`",
        ),
        (TAR, "this is a tar archive; unpack it and name what is inside"),
        (b"\x1f\x8b\x08\x00abc", "this is a gzip file; unpack it and name what is inside"),
        (b"PK\3\4abc", "this is a zip archive; unpack it and name what is inside"),
        (
            b"\n<!DOCTYPE html><html>",
            "this is a web page, perhaps of a login or an error, instead of the file; download the file again",
        ),
        (b'{"a": ["half \\ud83d pair"]}', f"half of a surrogate pair (\\ud83d) in the text 'half \\ud83d pair': {CUT}"),
        (b'{"half \\uDE00": 1}', f"half of a surrogate pair (\\ude00) in the text 'half \\ude00': {CUT}"),
        (b'{"a": "\xed\xa0\xbd"}', "not UTF-8 text at byte 7; save it as UTF-8"),
    ],
)
def test_a_wrong_object_is_one_line(tmp_path: pathlib.Path, data: bytes, message: str) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(data)
    with pytest.raises(errors.UserError) as error:
        files.read_object(path)
    assert str(error.value) == f"{path}: {message}"


def test_what_is_no_file_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "no.json", "no such file"),
        (tmp_path / "file" / "below", "no such file"),
        (tmp_path, "a folder, not a file"),
        (tmp_path / "pipe", "a pipe or a device, not a file"),
        ("/dev/zero", "a pipe or a device, not a file"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
    ):
        with pytest.raises(errors.UserError) as error:
            files.read_json(path)
        assert str(error.value) == f"{path}: {message}"


def test_a_name_that_no_file_has() -> None:
    with pytest.raises(errors.UserError, match=r"^'a\\x00b': not a possible name of a file$"):
        files.read_json("a\0b")


def test_a_disk_that_fails_is_no_mistake_of_the_user(tmp_path: pathlib.Path) -> None:
    """The machine's boundary says whether starting again helps, and about which file."""
    (tmp_path / "f.json").write_text("{}")
    with (
        mock.patch("os.fstat", side_effect=OSError(errno.EIO, "Input/output error")),
        pytest.raises(OSError, match=r"f\.json") as error,
    ):
        files.read_json(tmp_path / "f.json")
    failed = machine.failure(error.value)
    assert failed is not None and failed.code == 75 and failed.line.startswith(f"{tmp_path}/f.json: input/output error")


def test_a_large_file_is_refused_unread(tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "f.json", "wb") as file:
        file.truncate(limits.JSON_BYTES + 1)  # a hole that takes no room
    with pytest.raises(
        errors.UserError, match=r"f\.json: 67,108,865 bytes, at most 67,108,864 are read; is it the right file\?$"
    ):
        files.read_json(tmp_path / "f.json")


def test_what_is_right_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "f.json"
    value = {"smile": "\N{GRINNING FACE}", "n": [1, 2.5, None, True]}
    for data in (
        json.dumps(value).encode(),
        b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False, indent=2).encode(),
    ):
        path.write_bytes(data)
        assert files.read_object(path) == value
    path.write_text('{"loss": NaN}')
    assert str(files.read_json(path)) == "{'loss': nan}"


texts = st.text(st.characters(codec=None, categories=None, exclude_categories=()), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(values, st.booleans())
def test_any_json_is_read_or_refused(value: object, ascii_only: bool) -> None:
    """What comes through can be written as UTF-8, and says what the text said."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    try:
        found = files.parse_json(text.encode("utf-8", "surrogatepass"), "f.json", finite=True)
    except errors.UserError as e:
        assert "\n" not in str(e)
        assert (
            any(0xD800 <= ord(c) < 0xE000 for c in json.dumps(value, ensure_ascii=False))
            or "NaN" in text
            or "Infinity" in text
        )
    else:
        json.dumps(found, ensure_ascii=False).encode()
        assert found == json.loads(text)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(st.binary(max_size=64) | st.text('{}[]",:\\u d8391e+-.', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        files.parse_json(data, "f.json", finite=True)
    except errors.UserError as e:
        assert str(e).startswith("f.json: ") and len(str(e)) < 400


def test_writing_is_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    path = tmp_path / ("n" * 255)  # the longest name that there is
    files.write_text(path, "old é\n")
    assert path.read_bytes() == "old é\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()
    with (
        mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")),
        pytest.raises(OSError, match="No space"),
    ):
        files.write_text(path, "new")
    assert path.read_text() == "old é\n" and os.listdir(tmp_path) == [path.name]


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_json_at_its_limits_is_read() -> None:
    deep = b"[" * 100 + b"]" * 100
    assert json.dumps(files.parse_json(deep, "x")).encode() == deep
    # what stands in texts counts, too: beyond it there is no sound document
    text = json.dumps(["[{,"] * 900_000).encode()
    with pytest.raises(errors.UserError, match="values in one document"):
        files.parse_json(text, "x")
    assert len(files.parse_json(b"[" + b"1," * 2_000_000 + b"1]", "x")) == 2_000_001


def test_a_file_that_says_it_is_empty_is_limited(tmp_path: pathlib.Path) -> None:
    with open("/proc/self/status", "rb") as file:  # its size is given as 0
        assert files.read_limited(file, "x", 1 << 20).startswith(b"Name:")
    with (
        open("/proc/self/status", "rb") as file,
        pytest.raises(errors.UserError, match=r"^x: more than 100 bytes; is it the right file\?$"),
    ):
        files.read_limited(file, "x", 100)


def test_what_is_said_twice_alike_is_said_once() -> None:
    assert files.parse_json(b'{"a": [1], "b": 2, "a": [1]}', "f.json") == {"a": [1], "b": 2}
