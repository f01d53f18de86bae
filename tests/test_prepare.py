from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax.data import images
from vlguard_jax.data import standin
from vlguard_jax.data import vlguard
from vlguard_jax.data import vlguard_folder


@pytest.fixture
def metadata(tmp_path, monkeypatch):
    """A small set of the same form; the published counts are replaced by its own."""
    monkeypatch.setattr(vlguard, "COUNTS", {"train": {"unsafe": 3, "safe": 5}, "test": {"unsafe": 2, "safe": 2}})
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
    splits = vlguard_folder.prepare(metadata, out, None, stand_in=True)
    assert [(s.unsafe, s.safe, s.pairs, s.pictures) for s in splits] == [(3, 5, 13, 7), (2, 2, 6, 4)]
    assert sorted(path.name for path in out.iterdir()) == ["test", "test.json", "train", "train.json", "vlguard.json"]
    for name in vlguard.SPLITS:
        items = vlguard.read_items(out, name)
        assert {item.image for item in items} == {str(p.relative_to(out / name)) for p in (out / name).rglob("*.*")}
        assert all(images.load_image(out / name / item.image, "pad", 56).shape == (56, 56, 3) for item in items)
        assert vlguard.is_stand_in(out / name)
    assert {Image.open(path).format for path in (out / "train").rglob("*.*")} == {"JPEG", "PNG"}


def test_running_again_changes_nothing_and_overwrites_nothing(metadata, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "out.partial" / "train").mkdir(parents=True)  # of a run that was stopped
    vlguard_folder.prepare(metadata, out, None, stand_in=True)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    vlguard_folder.prepare(metadata, out, None, stand_in=True)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert not (tmp_path / "out.partial").exists()
    (out / "vlguard.json").unlink()
    with pytest.raises(errors.UserError, match=r"out holds something else already: remove it, or name another folder with --out$"):
        vlguard_folder.prepare(metadata, out, None, stand_in=True)


def test_real_pictures_are_checked_and_linked(metadata, tmp_path):
    source = tmp_path / "unzipped"
    for name in vlguard.SPLITS:
        for item in vlguard.read_items(metadata, name):
            stand.write_picture(source / name / item.image)
    out = tmp_path / "out"
    (source / "test" / "set" / "1.png").unlink()
    with pytest.raises(
        errors.UserError, match=r"1 of 11 pictures are missing, first: test/set/1\.png; the pictures are gated: accept the terms"
    ):
        vlguard_folder.prepare(metadata, out, source, stand_in=False)
    assert not out.exists() and not (tmp_path / "out.partial").exists()
    stand.write_picture(source / "test" / "set" / "1.png")
    vlguard_folder.prepare(metadata, out, source, stand_in=False)
    assert (out / "test" / "set" / "1.png").is_file() and not vlguard.is_stand_in(out / "test")


def test_wrong_counts(metadata, tmp_path):
    values = json.loads((metadata / "test.json").read_text())
    (metadata / "test.json").write_text(json.dumps(values[1:]))
    with pytest.raises(errors.UserError, match=r"test\.json: 1 unsafe and 2 safe records, VLGuard's test split has 2 and 2"):
        vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=True)


def test_drawing_depends_on_the_record_only():
    safe, other = (vlguard.Item(id_, "a.png", True, ()) for id_ in ("1", "2"))
    risky = vlguard.Item("1", "a.png", False, (), category="risky behavior")
    np.testing.assert_array_equal(standin.draw(safe), standin.draw(safe))
    assert standin.draw(safe).size != standin.draw(other).size or not np.array_equal(standin.draw(safe), standin.draw(other))
    middle = [tuple(np.asarray(standin.draw(item).resize((8, 8)))[3, 3].astype(int) - 128) for item in (safe, risky)]
    assert middle[0][1] > middle[0][0] and middle[1][0] > middle[1][1]  # green is safe, red is not


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = pathlib.Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "vlguard_jax.prepare", *arguments], cwd=root, capture_output=True, text=True, env=dict(os.environ)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vlgard"], "error: prepare cannot do 'vlgard'; did you mean 'vlguard'?\n"),
        (["vlguard", "--out=x"], "error: prepare vlguard needs --metadata\n"),
        (["vlguard", "--metadata=nowhere", "--out=x"], "error: nowhere: no such folder (--metadata)\n"),
        (["vlguard", "more"], "error: prepare vlguard takes no further argument, but got 'more'\n"),
    ],
)
def test_user_mistakes(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (2, message)


def test_without_a_sub_command_it_says_what_it_can_do():
    done = run()
    assert done.returncode == 0 and "--stand_in_images" in done.stdout
