"""Duplicates and near-duplicates, on drawings and on pictures of a few pixels; groups against scipy's components."""

from __future__ import annotations

import hashlib
import pathlib
import random

import numpy as np
from PIL import ExifTags
from PIL import Image
from PIL import ImageDraw
from PIL import ImageOps
import pytest
from scipy.sparse import csgraph

from tests.curating import world
from vlguard_jax import errors
from vlguard_jax.curating import near
from vlguard_jax.curating import scan
from vlguard_jax.curating import settings

S = settings.PictureSettings(path="there")


def seen(name: str, bits: int, pixels: str = "") -> scan.Seen:
    digest = pixels or hashlib.sha256(name.encode()).hexdigest()
    return scan.Seen(name, name, digest, digest, 8, 8, f"{bits:032x}", "")


def folder_of(path: pathlib.Path, **pictures: Image.Image) -> scan.Folder:
    path.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(path / f"{name}.png")
    return scan.scan(path, path.parent / f"{path.name}.jsonl", "config.pictures.path")


def captioned(picture: Image.Image, text: str) -> Image.Image:
    picture = picture.copy()
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 100, 160, 128), fill="white")
    pen.text((4, 102), text, fill="black", font_size=22)
    return picture


def names(dropped) -> dict[str, str]:
    return {one.name: one.reason for one in dropped}


def test_the_first_by_name_stays_and_others_say_which(tmp_path: pathlib.Path) -> None:
    picture = world.draw(1)
    small = picture.resize((96, 80), Image.Resampling.LANCZOS)
    found = near.sort_out(folder_of(tmp_path / "a", a=world.draw(2), b=picture, c=picture, d=small), [], S)
    assert [one.name for one in found.kept] == ["a.png", "b.png"]
    assert [(one.name, one.reason, one.told) for one in found.dropped] == [
        ("c.png", "duplicate", "the picture b.png"),
        ("d.png", "near-duplicate", "like b.png"),
    ]


def test_other_words_on_the_same_picture_are_another_picture_of_one_group(tmp_path: pathlib.Path) -> None:
    pictures = {"a": captioned(world.draw(1), "WHAT A DAY"), "b": captioned(world.draw(1), "GO HOME NOW")}
    found = near.sort_out(folder_of(tmp_path / "a", **pictures), [], S)
    assert len(found.kept) == 2 and set(found.groups.values()) == {"a.png"}


def test_pictures_of_one_colour_differ_by_it(tmp_path: pathlib.Path) -> None:
    plain = {name: Image.new("RGB", (40, 40), name) for name in ("red", "green", "blue", "white")}
    found = near.sort_out(folder_of(tmp_path / "a", **plain), [], S)
    assert len(found.kept) == 4 and len(set(found.groups.values())) == 1


def test_another_set_comes_first(tmp_path: pathlib.Path) -> None:
    mine = folder_of(tmp_path / "a", a=world.draw(1), b=world.draw(2).resize((96, 80)), c=world.draw(3))
    theirs = folder_of(tmp_path / "b", x=world.draw(1), y=world.draw(2))
    found = near.sort_out(mine, [theirs], S)
    assert names(found.dropped) == {"a.png": "in another set", "b.png": "near another set"}


def test_groups_are_the_connected_components() -> None:
    rng = random.Random(5)
    centres = [rng.getrandbits(128) for _ in range(12)]
    bits = [centre ^ sum(1 << rng.randrange(128) for _ in range(rng.randrange(12))) for centre in centres * 6]
    packed = near._bits([seen(f"{i:03d}", one) for i, one in enumerate(bits)])
    links = np.array([[(a ^ b).bit_count() <= 9 for b in bits] for a in bits])
    count, component = csgraph.connected_components(links)
    groups = near._groups([f"{i:03d}" for i in range(len(bits))], packed, 9)
    assert len(set(groups.values())) == count > 12
    for i, name in enumerate(groups):
        assert groups[name] == f"{int(np.flatnonzero(component == component[i])[0]):03d}"


def test_hashes_of_unlike_pictures_are_far_apart() -> None:
    hashes = [scan.perceptual(world.draw(seed)) for seed in range(60)]
    distances = [int(np.bitwise_count(a ^ b).sum()) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > S.group_bits
    assert scan.perceptual(Image.new("RGB", (30, 50), "red")).sum() == 0


def test_a_bad_picture_is_left_out_or_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.jpg").write_bytes(b"<html>")
    found = near.sort_out(folder_of(tmp_path / "a", good=world.draw(1)), [], S)
    assert names(found.dropped) == {"bad.jpg": "unreadable"} and "web page" in found.dropped[0].told
    with pytest.raises(errors.UserError, match=r"bad\.jpg: .*config\.pictures\.on_bad"):
        near.sort_out(scan.scan(tmp_path / "a", tmp_path / "n", "x"), [], settings.PictureSettings(on_bad="error"))


def test_a_scan_goes_on_and_reads_what_has_changed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a"
    first = folder_of(folder, a=world.draw(1), b=world.draw(2))
    read: list[str] = []
    look = scan.look
    monkeypatch.setattr(scan, "look", lambda *args: (read.append(args[1]), look(*args))[1])
    notes = tmp_path / "a.jsonl"
    notes.write_bytes(notes.read_bytes()[:-20])  # its writer was killed
    again = scan.scan(folder, notes, "config.pictures.path")
    assert again.pictures == first.pictures and read == ["b.png"] and "cut short" in again.notices[0]
    world.draw(3).save(folder / "a.png")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    later = scan.scan(folder, notes, "config.pictures.path")
    assert read == ["b.png", "a.png"] and later.pictures[0].pixels != first.pictures[0].pixels and later.others == 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_copy_whose_turn_stands_in_exif_is_a_copy(tmp_path: pathlib.Path, orientation: int) -> None:
    """Stored so that it is the same picture once EXIF is followed, as Pillow's own exif_transpose confirms."""
    picture = world.draw(1)
    stored = next(
        turned
        for turned in (picture, *(picture.transpose(method) for method in Image.Transpose))
        if shown(turned, orientation).tobytes() == picture.tobytes()
    )
    folder = tmp_path / "a"
    folder.mkdir()
    picture.save(folder / "a.png")
    stored.save(folder / "b.png", exif=exif(orientation))
    stored.save(folder / "c.jpg", quality=95, exif=exif(orientation))
    found = near.sort_out(folder_of(folder), [], S)
    assert names(found.dropped) == {"b.png": "duplicate", "c.jpg": "near-duplicate"}


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Orientation] = orientation
    return made


def shown(picture: Image.Image, orientation: int) -> Image.Image:
    copy = picture.copy()
    copy.info["exif"] = exif(orientation).tobytes()
    return ImageOps.exif_transpose(copy)


def test_a_broken_exif_turns_nothing(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    world.draw(1).save(folder / "a.png", exif=b"Exif\0\0XX*\0broken")
    assert [one.name for one in near.sort_out(folder_of(folder), [], S).kept] == ["a.png"]
