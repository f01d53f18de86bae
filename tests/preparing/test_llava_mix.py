"""`prepare llava_mix` and `prepare clean` through the real commands."""

from __future__ import annotations

import json

import pytest

from tests.data import stand
from tests.preparing import test_commands


@pytest.fixture
def folder(tmp_path):
    records = [stand.record("<image>\nfox", f"dog {i}.", images=(f"coco/{i}.png",), id=str(i)) for i in range(6)]
    stand.write_records(tmp_path / "mix.json", records)
    stand.write_records(tmp_path / "clean.json", [record for record in records if record.id not in "14"])
    stand.write_picture(tmp_path / "images/coco/0.png")
    return tmp_path


def test_sample_and_what_is_to_be_fetched(folder):
    arguments = ("--mix=mix.json", "--out=out", "--count=6", "--images=images", "--any_size")
    done = test_commands.run(folder, "llava_mix", *arguments)
    assert done.returncode == 0, done.stderr
    assert "1 of 6 pictures are in images, 5 are missing." in done.stdout
    assert len((folder / "out/llava_mix_6_seed0.absent.txt").read_text().split()) == 5
    assert len(json.loads((folder / "out/llava_mix_6_seed0.json").read_text())) == 6


def test_ids_that_the_clean_form_leaves_out(folder):
    done = test_commands.run(folder, "clean", "--mix=mix.json", "--cleaned=clean.json", "--out=ids.txt", "--any_size")
    assert done.returncode == 0, done.stderr
    assert (folder / "ids.txt").read_text() == "1\n4\n" and "the ids of 2 conversations" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("llava_mix", "--out=out"), "prepare llava_mix needs --mix"),
        (("llava_mix", "--mix=mix.json", "--out=out"), "6 conversations, the published file has 665,298"),
        (("clean", "--mix=mix.json", "--cleaned=no.json", "--out=x", "--any_size"), "no.json: no such file"),
        (("clean", "--mix=mix.json", "--cleaned=clean.json", "--out=x", "--count=3"), "prepare clean takes no --count"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, message):
    done = test_commands.run(folder, *arguments)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and message in lines[0]
    assert not (folder / "out").exists() and not (folder / "x").exists()
