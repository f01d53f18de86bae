"""What is drawn of the mixture, and `prepare llava_mix` and `prepare clean` through the real commands."""

from __future__ import annotations

import json
import random

import pytest

from tests.data import stand
from tests.preparing import test_commands
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import mixtures
from vlguard_jax.families.chat import templates
from vlguard_jax.preparing import llava_mix


def values(n: int = 30) -> list[dict]:
    """Some with pictures of two folders; ids repeat."""
    shown = [
        stand.record("<image>\nfox", f"dog {i}.", images=(f"{'coco' if i % 2 else 'gqa'}/{i % 7}.png",), id=f"{i % 5}")
        for i in range(n)
    ]
    return [stand.as_json(record) for record in shown] + [stand.as_json(stand.record("fox", "dog.", id="text"))]


@pytest.fixture
def mix(tmp_path):
    path = tmp_path / "mix.json"
    path.write_text(json.dumps(values()))
    return path


def draw(mix, out, count=8, seed=0, **more) -> llava_mix.Sample:
    return llava_mix.draw(mix, out, count, seed, any_size=True, **more)


def test_sample_is_what_a_source_draws(mix, tmp_path):
    drawn = draw(mix, tmp_path / "out")
    assert [path.name for path in drawn.files] == [
        f"llava_mix_8_seed0{end}" for end in (".json", ".ids.txt", ".pictures.txt")
    ]
    chosen = json.loads(drawn.files[0].read_text())
    assert chosen == [values()[i] for i in sorted(random.Random(0).sample(range(31), 8))]
    needed = drawn.files[2].read_text().split()
    assert needed == sorted({value["image"] for value in chosen if "image" in value}) and drawn.pictures == len(needed)
    assert sum(drawn.by_folder.values()) == drawn.pictures and set(drawn.by_folder) <= {"coco", "gqa"}
    assert draw(mix, tmp_path / "again").files[0].read_bytes() == drawn.files[0].read_bytes()
    assert draw(mix, tmp_path / "other", seed=1).files[0].read_text() != drawn.files[0].read_text()

    for name in needed:
        stand.write_picture(tmp_path / "pictures" / name)
    tokenizer = stand.make_tokenizer(tmp_path / "tokenizer", legacy=True)

    def ids(**settings) -> list[str]:
        source = config.SourceSettings(images=str(tmp_path / "pictures"), **settings)
        made = mixtures.build(
            config.DataSettings(sources={"mix": source}), tokenizer, templates.get_template("vicuna_v1"), stand.sees()
        )
        return [made.record(i).turns[1].text for i in range(len(made.index))]

    assert (
        ids(path=str(mix), count=8)
        == ids(path=str(mix), include_ids=str(drawn.files[1]))
        == ids(path=str(drawn.files[0]))
    )


def test_absent_pictures_are_listed(mix, tmp_path):
    stand.write_picture(tmp_path / "pictures" / "coco" / "1.png")
    drawn = draw(mix, tmp_path / "out", count=31, images=str(tmp_path / "pictures"))
    assert drawn.absent == drawn.pictures - 1 and drawn.files[3].name.endswith(".absent.txt")
    assert len(drawn.files[3].read_text().split()) == drawn.absent


def test_clean_form(mix, tmp_path):
    clean = [value for i, value in enumerate(values()) if i not in (3, 8, 30)]
    # Written in another way, with its fields in another order.
    (tmp_path / "clean.json").write_text(json.dumps([dict(reversed(value.items())) for value in clean], indent=1))
    assert llava_mix.removed(mix, tmp_path / "clean.json", tmp_path / "out" / "ids.txt", any_size=True) == 3
    assert (tmp_path / "out" / "ids.txt").read_text().split() == ["3~1", "3~2", "text"]
    (tmp_path / "clean.json").write_text(json.dumps([*clean, {"id": "new", "conversations": []}]))
    with pytest.raises(
        errors.UserError, match=r"clean\.json: 1 conversations are not in .*mix\.json: name the mixture"
    ):
        llava_mix.removed(mix, tmp_path / "clean.json", tmp_path / "ids.txt", any_size=True)


def test_numbers_must_be_the_published_ones(mix, tmp_path):
    with pytest.raises(
        errors.UserError,
        match=r"mix\.json: 31 conversations, the published file has 665,298: download it again, or say",
    ):
        llava_mix.draw(mix, tmp_path, 8, 0)
    with pytest.raises(errors.UserError, match=r"mix\.json: 31 conversations, the published file has 665,298"):
        llava_mix.removed(mix, mix, tmp_path / "ids.txt")
    with pytest.raises(errors.UserError, match=r"^--count=32 must be between 1 and the 31 conversations"):
        draw(mix, tmp_path, count=32)


def test_the_clean_form_has_247_less(mix, tmp_path, monkeypatch):
    monkeypatch.setattr(llava_mix, "PUBLISHED", 31)
    monkeypatch.setattr(llava_mix, "FLAGGED", 2)
    with pytest.raises(errors.UserError, match=r"mix\.json: 31 conversations, the published file has 29"):
        llava_mix.removed(mix, mix, tmp_path / "ids.txt")


def test_half_of_a_surrogate_pair_names_its_record(mix, tmp_path):
    """In an id that would be written."""
    whole = values()
    whole[3]["id"] = "half \ud83d pair"
    mix.write_text(json.dumps(whole))
    (tmp_path / "clean.json").write_text(json.dumps(whole[:3] + whole[4:]))
    for call in (
        lambda: draw(mix, tmp_path / "out", 30),
        lambda: llava_mix.removed(mix, tmp_path / "clean.json", tmp_path / "x", True),
    ):
        with pytest.raises(errors.UserError, match=r"record 3: half of a surrogate pair"):
            call()
    assert not (tmp_path / "out").exists() and not (tmp_path / "x").exists()


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
