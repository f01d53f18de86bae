"""`prepare vlguard`: VLGuard's files checked, pictures drawn or linked to, and laid out."""

from __future__ import annotations

import json
import pathlib
import shutil
import zipfile

import numpy as np
from PIL import Image
import pytest

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax.data import images
from vlguard_jax.data import vlguard
from vlguard_jax.data.tfds import reader
from vlguard_jax.preparing import stand_in_pictures
from vlguard_jax.preparing import vlguard_folder


@pytest.fixture
def metadata(tmp_path, monkeypatch):
    """A small set of the same form; the published counts are replaced by its own."""
    monkeypatch.setattr(vlguard, "COUNTS", {"train": {"unsafe": 3, "safe": 5}, "test": {"unsafe": 2, "safe": 2}})
    monkeypatch.setattr(vlguard_folder, "PICTURES", {"train": 7, "test": 4})
    folder = tmp_path / "metadata"
    folder.mkdir()
    for name, n, unsafe in (("train", 8, 3), ("test", 4, 2)):
        values = [stand.vlguard_value(i, safe=i >= unsafe) for i in range(n)]
        if name == "train":
            values[7]["image"] = values[6]["image"]  # VLGuard has one picture twice
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def test_stand_in_pictures(metadata, tmp_path):
    out = tmp_path / "new" / "out"
    prepared = vlguard_folder.prepare(metadata, out, None, stand_in=True)
    assert not prepared.was_ready and prepared.records == out / "tfds" / "vlguard" / "1.0.0"
    assert [(s.unsafe, s.safe, s.pairs, s.pictures) for s in prepared.splits] == [(3, 5, 13, 7), (2, 2, 6, 4)]
    assert sorted(path.name for path in out.iterdir()) == [
        "test",
        "test.json",
        "tfds",
        "train",
        "train.json",
        "vlguard.json",
    ]
    for name in vlguard.SPLITS:
        items = vlguard.read_items(out, name)
        assert {item.image for item in items} == {str(p.relative_to(out / name)) for p in (out / name).rglob("*.*")}
        for item in items:
            seen = images.load(out / name / item.image, stand.sees(56), "pad").arrays["images"]
            assert seen.shape == (1, 56, 56, 3)
        assert vlguard.is_stand_in(out / name)
        records = reader.open_prepared(prepared.records, name)
        assert records.stand_in
        assert all(records.read(item.image) == (out / name / item.image).read_bytes() for item in items)
    assert {Image.open(path).format for path in (out / "train").rglob("*.*")} == {"JPEG", "PNG"}


def stamps(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_running_again_changes_nothing_and_overwrites_nothing(metadata, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "out.partial" / "train").mkdir(parents=True)  # somebody's
    vlguard_folder.prepare(metadata, out, None, stand_in=True)
    before = stamps(out)
    assert vlguard_folder.prepare(metadata, out, None, stand_in=True).was_ready
    assert before == stamps(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metadata", "out", "out.partial"]
    (out / "vlguard.json").unlink()
    with pytest.raises(
        errors.UserError, match=r"out holds something else already: remove it, or name another folder with --out$"
    ):
        vlguard_folder.prepare(metadata, out, None, stand_in=True)


def test_records_that_are_missing_are_added_and_others_are_not_taken_for_these(metadata, tmp_path):
    out = tmp_path / "out"
    vlguard_folder.prepare(metadata, out, None, stand_in=True)
    files = {path: at for path, at in stamps(out).items() if "tfds" not in path.parts and path.is_file()}
    shutil.rmtree(out / "tfds")
    assert not vlguard_folder.prepare(metadata, out, None, stand_in=True).was_ready
    assert len(reader.open_prepared(out, "train").items()) == 8
    assert sorted(path.name for path in out.iterdir()) == [
        "test",
        "test.json",
        "tfds",
        "train",
        "train.json",
        "vlguard.json",
    ]
    assert files.items() <= stamps(out).items()
    note = out / "tfds" / "vlguard" / "1.0.0" / "metadata.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"stand_in": False}))
    with pytest.raises(errors.UserError, match=r"1\.0\.0 was made from other files: remove it and run prepare again$"):
        vlguard_folder.prepare(metadata, out, None, stand_in=True)


def test_a_stopped_run_leaves_nothing_half_written(metadata, tmp_path, monkeypatch):
    def stopped(folder: pathlib.Path, description: str) -> None:
        assert folder.name.startswith(".out.") and folder.name.endswith(".partial")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vlguard_folder, "write_records", stopped)
        with pytest.raises(KeyboardInterrupt):
            vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=True)
    assert [path.name for path in tmp_path.iterdir()] == ["metadata"]
    (tmp_path / "link").symlink_to("somewhere")
    with pytest.raises(errors.UserError, match="link is a link to somewhere; name the folder itself"):
        vlguard_folder.prepare(metadata, tmp_path / "link", None, stand_in=True)
    assert not vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=True).was_ready


def test_real_pictures_are_checked_and_linked(metadata, tmp_path):
    source = tmp_path / "unzipped"
    for name in vlguard.SPLITS:
        for item in vlguard.read_items(metadata, name):
            stand.write_picture(source / name / item.image)
    out = tmp_path / "out"
    (source / "test" / "set" / "1.png").unlink()
    with pytest.raises(
        errors.UserError,
        match=r"1 of 11 pictures are missing, first: test/set/1\.png; the pictures are gated: accept the terms",
    ):
        vlguard_folder.prepare(metadata, out, source, stand_in=False)
    assert not out.exists() and not list(tmp_path.glob(".*"))
    stand.write_picture(source / "test" / "set" / "1.png")
    vlguard_folder.prepare(metadata, out, source, stand_in=False)
    assert (out / "test" / "set" / "1.png").is_file() and not vlguard.is_stand_in(out / "test")
    assert (out / "test").is_symlink() and not reader.open_prepared(out, "test").stand_in


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("damage", ["cut", "middle", "empty", "text"])
def test_a_picture_that_cannot_be_read_is_named(metadata, tmp_path, zipped, damage):
    source = tmp_path / "unzipped"
    for name in vlguard.SPLITS:
        for item in vlguard.read_items(metadata, name):
            stand.write_picture(source / name / item.image, size=(300, 200))
    path = source / "train" / "set" / "2.jpg"
    whole = path.read_bytes()
    middle = whole[:400] + b"\xff\xda" * 50 + whole[500:]  # what a look at the head and the last bytes does not see
    path.write_bytes({"cut": whole[:200], "middle": middle, "empty": b"", "text": b"<html>"}[damage])
    if zipped:
        for name in vlguard.SPLITS:
            shutil.make_archive(str(source / name), "zip", source, name)
            shutil.rmtree(source / name)
    with pytest.raises(
        errors.UserError, match=r"unzipped: 1 of 11 pictures are not readable, first: train/set/2\.jpg: "
    ) as caught:
        vlguard_folder.prepare(metadata, tmp_path / "out", source, stand_in=False)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_zipped_pictures_need_no_unpacking(metadata, tmp_path):
    for split in vlguard.SPLITS:
        with zipfile.ZipFile(metadata / f"{split}.zip", "w") as file:  # beside the JSON files, as they are downloaded
            file.mkdir(split)
            for item in vlguard.read_items(metadata, split):
                name = f"{split}/{item.image}"
                if name not in file.namelist():
                    file.writestr(
                        name, stand.write_picture(tmp_path / "drawn" / item.image, seed=len(split)).read_bytes()
                    )
            file.writestr("../outside.png", b"")
    out = tmp_path / "out"
    vlguard_folder.prepare(metadata, out, None, stand_in=False)
    assert not (tmp_path / "outside.png").exists() and not list(out.rglob("outside.png"))
    for split in vlguard.SPLITS:
        with zipfile.ZipFile(metadata / f"{split}.zip") as file:
            for item in vlguard.read_items(out, split):
                content = file.read(f"{split}/{item.image}")
                assert (
                    content
                    == (out / split / item.image).read_bytes()
                    == reader.open_prepared(out, split).read(item.image)
                )


def test_zip_files_with_too_little_in_them(metadata, tmp_path):
    for split in vlguard.SPLITS:
        zipfile.ZipFile(metadata / f"{split}.zip", "w").close()
    with pytest.raises(errors.UserError, match=r"metadata: 11 of 11 pictures are missing, first: test/set/0\.jpg"):
        vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=False)
    (metadata / "test.zip").write_bytes(b"no zip file")
    with pytest.raises(errors.UserError, match=r"test\.zip: not a whole zip file \(.+\); download it again"):
        vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=False)
    assert not (tmp_path / "out").exists()


def test_stand_ins_are_never_taken_for_the_real_ones(metadata, tmp_path):
    vlguard_folder.prepare(metadata, tmp_path / "drawn", None, stand_in=True)
    with pytest.raises(
        errors.UserError, match=r"drawn: its pictures are drawn stand-ins, not VLGuard's; the pictures are gated"
    ):
        vlguard_folder.prepare(metadata, tmp_path / "out", tmp_path / "drawn", stand_in=False)


def test_wrong_counts(metadata, tmp_path):
    values = json.loads((metadata / "test.json").read_text())
    (metadata / "test.json").write_text(json.dumps(values[1:]))
    with pytest.raises(
        errors.UserError, match=r"test\.json: 1 unsafe and 2 safe records, VLGuard's test split has 2 and 2"
    ):
        vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=True)
    values[0]["image"] = values[1]["image"]
    (metadata / "test.json").write_text(json.dumps(values))
    with pytest.raises(
        errors.UserError, match=r"test\.json: names 3 pictures, VLGuard's test split has 4: download the file again"
    ):
        vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=True)


@pytest.mark.parametrize("drawn", [False, True])
def test_records_of_ones_own_of_any_size(metadata, tmp_path, drawn):
    values = json.loads((metadata / "train.json").read_text())[:3]
    (metadata / "train.json").write_text(json.dumps(values))
    for name in vlguard.SPLITS:
        stand_in_pictures.write_all(vlguard.read_items(metadata, name), metadata / name)
    (metadata / "vlguard.json").write_text(json.dumps({"stand_in": drawn}))
    prepared = vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=False, any_size=True)
    assert [(s.unsafe, s.safe) for s in prepared.splits] == [(3, 0), (2, 2)]
    assert vlguard.is_stand_in(tmp_path / "out" / "train") == drawn
    assert reader.open_prepared(prepared.records, "test").stand_in == drawn
    info = json.loads((prepared.records / "dataset_info.json").read_text())
    assert "not VLGuard" in info["description"]
    again = vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=False, any_size=True)
    assert again.was_ready
    with pytest.raises(errors.UserError, match="3 unsafe and 0 safe records"):
        vlguard_folder.prepare(metadata, tmp_path / "other", None, stand_in=False)
    (metadata / "test" / values[0]["image"]).unlink()
    with pytest.raises(errors.UserError, match="1 of 7 pictures are missing"):
        vlguard_folder.prepare(metadata, tmp_path / "other", None, stand_in=False, any_size=True)


def test_drawing_depends_on_the_record_only():
    safe, other = (vlguard.Item(id_, "a.png", True, ()) for id_ in ("1", "2"))
    risky = vlguard.Item("1", "a.png", False, (), category="risky behavior")
    draw = stand_in_pictures.draw
    np.testing.assert_array_equal(draw(safe), draw(safe))
    assert draw(safe).size != draw(other).size or not np.array_equal(draw(safe), draw(other))
    middle = [tuple(np.asarray(draw(item).resize((8, 8)))[3, 3].astype(int) - 128) for item in (safe, risky)]
    assert middle[0][1] > middle[0][0] and middle[1][0] > middle[1][1]  # green is safe, red is not
