from __future__ import annotations

import io
import os
import pathlib
import re
import zipfile

import numpy as np
from PIL import Image
import pytest

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.data import images
from vlguard_jax.data import picture_check
from vlguard_jax.data import pictures

GOOD = ["good.png", "in/good.jpg", "in/other.jpg"]
AT_HEADER = {
    "in/missing.jpg": r"no such picture; check the picture folder$",
    "empty.jpg": r"the file is empty; download it again",
    "page.jpg": r"this is a web page, perhaps of a login or an error, instead of the file; download the file again",
    "cut.jpg": r"image file is truncated .*; download it again",
    "cut.png": r".*; download it again",
    "deep.png": r"more than 8 bits of grey .*; convert it to 8 bits",
}
AT_DECODE = {"damaged.png": r".*; download it again"}


def write(top: pathlib.Path) -> dict[str, bytes]:
    """Good and bad pictures; gives every name's content."""
    for i, name in enumerate(GOOD):
        stand.write_picture(top / name, (60, 40), i)
    whole_jpg, whole_png = (stand.write_picture(top / name, (200, 200)).read_bytes() for name in ("cut.jpg", "cut.png"))
    deep = io.BytesIO()
    Image.fromarray(np.full((9, 9), 999, np.uint16)).save(deep, "PNG")
    middle = len(whole_png) // 2
    bad = {
        "cut.jpg": whole_jpg[: len(whole_jpg) // 2],
        "cut.png": whole_png[:-200],
        "empty.jpg": b"",
        "page.jpg": b"<html></html>",
        "deep.png": deep.getvalue(),
        "damaged.png": whole_png[:middle] + bytes([whole_png[middle] ^ 255]) + whole_png[middle + 1 :],
    }
    for name, content in bad.items():
        (top / name).write_bytes(content)
    return {name: (top / name).read_bytes() for name in [*GOOD, *bad]}


NAMES = [*AT_HEADER, *GOOD, *AT_DECODE]


def matches(found: dict[str, str], expected: dict[str, str]) -> bool:
    assert list(found) == [name for name in NAMES if name in expected]
    return all(re.fullmatch(expected[name], reason) for name, reason in found.items())


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_levels(tmp_path, kind):
    content = write(tmp_path / "p")
    location = tmp_path / "p"
    if kind == "zip":
        location = tmp_path / "p.zip"
        with zipfile.ZipFile(location, "w") as file:
            for name in content:
                file.writestr(name, content[name])
    store = pictures.open_store(str(location))
    missing = {"in/missing.jpg": AT_HEADER["in/missing.jpg"]}
    assert matches(picture_check.check(store, NAMES, "exists").bad, missing)
    assert matches(picture_check.check(store, NAMES, "header").bad, AT_HEADER)
    assert matches(picture_check.check(store, NAMES, "decode").bad, AT_HEADER | AT_DECODE)


def test_the_check_says_what_loading_says(tmp_path):
    write(tmp_path)
    store = pictures.open_store(str(tmp_path))
    found = picture_check.check(store, NAMES, "decode", stand.sees(14), "crop")
    for name in NAMES:
        try:
            images.load(store.read(name), stand.sees(14), "crop", name=name)
            assert name not in found.bad
        except errors.UserError as e:
            assert str(e).endswith(found.bad[name])


def test_a_damaged_member_is_one_bad_picture(tmp_path):
    path = tmp_path / "p.zip"
    picture = stand.write_picture(tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(path, "w") as file:
        for name in ("a.png", "b.png"):
            file.writestr(name, picture)
    path.write_bytes(path.read_bytes().replace(picture, picture[:-9] + b"?" + picture[-8:], 1))
    found = picture_check.check(pictures.open_store(str(path)), ["b.png", "a.png"], "header").bad
    assert list(found) == ["a.png"] and "p.zip: member a.png is damaged" in found["a.png"]


def test_a_broken_archive_stops_the_check(tmp_path):
    (tmp_path / "p.zip").write_bytes(b"no archive")
    with pytest.raises(errors.UserError, match=r"p\.zip: not a whole zip file"):
        picture_check.check(pictures.open_store(str(tmp_path)), ["p/1.jpg"], "exists")


def test_the_bounds_are_those_of_the_mode(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PICTURE_SCALED", 1000)
    stand.write_picture(tmp_path / "long.png", (1, 90))
    store = pictures.open_store(str(tmp_path))
    assert picture_check.check(store, ["long.png"], "header", stand.sees(14), "pad").bad == {}
    found = picture_check.check(store, ["long.png"], "header", stand.sees(14), "crop")
    assert "too long" in found.bad["long.png"] and not found.sizes


class Opened:
    """A store that counts what is opened."""

    def __init__(self, monkeypatch):
        self.names: list[str] = []
        opened = pictures.Store.open
        monkeypatch.setattr(pictures.Store, "open", lambda store, name: self.names.append(name) or opened(store, name))

    def take(self) -> list[str]:
        names, self.names = sorted(self.names), []
        return names


def test_good_pictures_are_remembered(tmp_path, monkeypatch):
    write(tmp_path / "p")
    store, cache, opened = pictures.open_store(str(tmp_path / "p")), tmp_path / "cache", Opened(monkeypatch)
    there = sorted(name for name in NAMES if name != "in/missing.jpg")
    bad = sorted(set(there) - {*GOOD, *AT_DECODE})
    first = picture_check.check(store, NAMES, "header", cache=cache)
    assert opened.take() == there
    assert picture_check.check(store, NAMES, "header", cache=cache) == first and opened.take() == bad
    os.utime(tmp_path / "p" / GOOD[0], ns=(0, 7))
    stand.write_picture(tmp_path / "p" / "empty.jpg")
    again = picture_check.check(store, NAMES, "header", cache=cache)
    assert opened.take() == sorted([*bad, GOOD[0]]) and set(first.bad) - set(again.bad) == {"empty.jpg"}
    picture_check.check(store, GOOD, "header", cache=cache)
    assert opened.take() == []
    for other in ((stand.sees(14), "pad"), (stand.sees(14), "crop"), (stand.sees(28), "crop")):
        picture_check.check(store, GOOD, "header", *other, cache=cache)
        assert opened.take() == sorted(GOOD)
        picture_check.check(store, GOOD, "header", *other, cache=cache)
        assert opened.take() == []
    picture_check.check(store, GOOD, "decode", cache=cache)
    picture_check.check(store, GOOD, "header")
    assert opened.take() == sorted(GOOD * 2)


def test_notes_that_are_cut_off_count_for_nothing(tmp_path, monkeypatch):
    stand.write_picture(tmp_path / "p" / "a.png")
    store, opened = pictures.open_store(str(tmp_path / "p")), Opened(monkeypatch)
    for _ in range(2):
        picture_check.check(store, ["a.png"], "header", cache=tmp_path)
        assert opened.take() == ["a.png"]
        (notes,) = (tmp_path / "pictures").iterdir()
        notes.write_bytes(notes.read_bytes()[:-1])


def test_progress_and_repeated_names(tmp_path):
    names = [f"{i}.png" for i in range(300)]
    picture = stand.write_picture(tmp_path / "0.png").read_bytes()
    for name in names:
        (tmp_path / name).write_bytes(picture)
    seen: list[tuple[int, int]] = []
    found = picture_check.check(
        pictures.open_store(str(tmp_path)), names * 2, "header", progress=lambda done, of: seen.append((done, of))
    )
    assert found.bad == {} and seen[-1] == (300, 300) and seen == sorted(seen) and len(seen) > 2


def test_unknown_level(tmp_path):
    with pytest.raises(
        errors.UserError, match=r"^config\.data\.check_pictures='heads' is unknown; did you mean 'header'\?$"
    ):
        picture_check.check(pictures.open_store(str(tmp_path)), [], "heads")


def test_nothing_to_check(tmp_path):
    assert picture_check.check(pictures.open_store(str(tmp_path)), [], "decode", cache=tmp_path).bad == {}
