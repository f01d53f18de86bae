"""`curate` on 300 drawn pictures with planted faults, and a model behind a real HTTP server: every fault is found, the
numbers add up, and nothing is asked twice. Oracle: the world's own list of what was planted."""

from __future__ import annotations

from collections import Counter
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import pytest

from tests.curating import made
from tests.curating import model as model_lib
from tests.curating import world as world_lib
from vlguard_jax import errors
from vlguard_jax.curating import scan
from vlguard_jax.data import vlguard
from vlguard_jax.data.tfds import reader

PLAIN, EACH = 200, 12
N = PLAIN + 6 * EACH + 2 * len(world_lib.FAULTS)  # pictures
SPLITS = ("train", "test")
PICTURES = ("duplicate", "near-duplicate", "in another set", "near another set", "unreadable")


@dataclasses.dataclass
class Story:
    """The world, its model, the working directory and the first run there."""

    world: world_lib.World
    model: model_lib.Model
    folder: pathlib.Path
    first: made.Run

    @property
    def dataset(self) -> pathlib.Path:
        return self.folder / "dataset"

    @property
    def asked(self) -> list[list[str]]:
        """The script of every picture that is asked about."""
        out = {
            hashlib.sha256((self.world.folder / name).read_bytes()).hexdigest(): reason
            for name, reason in self.world.dropped.items()
        }
        return [script for sha256, script in self.world.script.items() if out.get(sha256) not in PICTURES]

    def records(self, split: str) -> list[dict]:
        return json.loads((self.dataset / f"{split}.json").read_text(encoding="utf-8"))

    def details(self) -> list[dict]:
        text = (self.dataset / "details.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory):
    top = tmp_path_factory.mktemp("curate")
    world = world_lib.build(top, PLAIN, EACH, made.TRIES)
    with model_lib.serving(model_lib.Model(world)) as model:
        first = made.curate(made.config(world, model.url, top={"tfds": True}), top / "run")
        yield Story(world, model, top / "run", first)


@pytest.fixture
def later(story: Story, tmp_path: pathlib.Path) -> Story:
    """The story with a working directory of the test's own, as the first run left it."""
    shutil.copytree(story.folder, tmp_path / "run")
    return dataclasses.replace(story, folder=tmp_path / "run")


def again(story: Story, **sections) -> made.Run:
    """The same command with other settings, in the same working directory."""
    return made.curate(made.config(story.world, story.model.url, **sections), story.folder)


def test_every_planted_fault_is_found_and_nothing_else(story: Story) -> None:
    assert N == 300
    assert story.first.dropped == story.world.dropped


def test_the_numbers_add_up(story: Story) -> None:
    listed = [json.loads(line) for line in (story.folder / "dropped.jsonl").read_text().splitlines()]
    records = [record for split in SPLITS for record in story.records(split)]
    pictures = [path for split in SPLITS for path in (story.dataset / split).rglob("*.png")]
    assert len(listed) + len(records) == N and len(pictures) == len(records) == N - len(story.world.dropped)
    assert len({record["id"] for record in records}) == len(records)


def test_records_are_in_vlguards_form_and_say_what_the_model_said(story: Story) -> None:
    by_name = {str(path.relative_to(story.world.folder)): path.read_bytes() for path in story.world.folder.rglob("*.*")}
    for split in SPLITS:
        for record in story.records(split):
            content = by_name[record["image"]]
            assert (story.dataset / split / record["image"]).read_bytes() == content
            said = world_lib.reply(story.world.drawings[hashlib.sha256(content).hexdigest()])
            if said["safe"]:
                pairs = [
                    {"safe_instruction": said["safe_question"], "response": said["safe_answer"]},
                    {"unsafe_instruction": said["unsafe_question"], "response": said["unsafe_answer"]},
                ]
                harm: dict = {}
            else:
                pairs = [{"instruction": said["unsafe_instruction"], "response": said["response"]}]
                merged = {finer: name for name, finer in world_lib.FINER.items()}
                subcategory = merged.get(str(said["subcategory"]), said["subcategory"])
                harm = {"harmful_category": said["category"], "harmful_subcategory": subcategory}
            expected = {"id": record["id"], "image": record["image"], "safe": said["safe"], **harm, "instr-resp": pairs}
            assert record == expected


def test_details_hold_all_eleven_keys_as_they_were_replied(story: Story) -> None:
    for one in story.details():
        said = world_lib.reply(story.world.drawings[one["image_sha256"]])
        assert {key: one[key] for key in said} == said and len(said) == 11
        assert one["language"] == "English" and not one["reviewed"]


def test_the_readers_of_training_and_evaluation_read_it(story: Story) -> None:
    for split in SPLITS:
        items = vlguard.read_items(story.dataset, split)
        prepared = reader.open_prepared(story.dataset, split)
        assert [dataclasses.replace(i, origin="") for i in prepared.items()] == [
            dataclasses.replace(i, origin="") for i in items
        ]
        assert all(prepared.read(i.image) == (story.dataset / split / i.image).read_bytes() for i in items)
        assert prepared.stand_in and vlguard.is_stand_in(story.dataset / split)
    info = json.loads((story.dataset / "tfds/vlguard/1.0.0/dataset_info.json").read_text())
    assert "not VLGuard itself" in info["description"] and "releaseNotes" not in info


def test_the_split_keeps_its_share_of_every_kind(story: Story) -> None:
    kinds = {s: Counter(r.get("harmful_subcategory", "safe") for r in story.records(s)) for s in SPLITS}
    for kind in kinds["train"]:
        n = kinds["train"][kind] + kinds["test"][kind]
        assert abs(kinds["test"][kind] - n / 3) <= 1, kind


def test_nothing_is_asked_twice_and_each_fault_as_often_as_tries_allow(story: Story) -> None:
    first = [key for key in story.model.asked if world_lib.OTHERWISE not in key[1] and "in English" in key[1]]
    asked = Counter(sha256 for sha256, _ in first)
    assert {story.model.asked[key] for key in first} == {1}
    assert sorted(asked.values()) == sorted(min(made.TRIES, 1 + len(script)) for script in story.asked)
    assert all(asked[sha256] == min(made.TRIES, 1 + len(story.world.script[sha256])) for sha256 in asked)


def test_the_next_question_says_what_was_wrong(story: Story) -> None:
    told = [text.rpartition("\n\n")[2] for _, text in story.model.asked if "not usable" in text]
    for wanted in (
        '"unsafe_answer" has 3 words; write 100 to 200 words.',
        "\"safe\": 'no' is not of type 'boolean'.",
        "'safe_answer' is a required property.",
        "must not hold any of <image>, </s>, <s>.",
        "was not one JSON object",
        "does not clearly decline",
    ):
        assert any(wanted in one for one in told), wanted


def test_the_card_tells_numbers_cost_and_reasons(story: Story) -> None:
    card = (story.dataset / "README.md").read_text(encoding="utf-8")
    n = sum(min(made.TRIES, 1 + len(script)) for script in story.asked)
    dollars = n * (model_lib.TOKENS[0] * 2.5 + model_lib.TOKENS[1] * 10) / 1e6
    for wanted in (
        "| pictures read | 300 |",
        f"| in the set | {N - len(story.world.dropped)} |",
        *(f"| left out: {reason} | -{count} |" for reason, count in Counter(story.world.dropped.values()).items()),
        f"judge-2026 ({n:,} replies)",
        rf"| cost of these replies | \${dollars:.2f} |",
        "NO RECORD WAS REVIEWED BY A PERSON",
        "| i'm sorry |",
        "You help to make a data set",
    ):
        assert wanted in card, wanted


def test_the_same_again_asks_nobody_and_writes_nothing(later: Story) -> None:
    before = {path: path.stat().st_mtime_ns for path in later.dataset.rglob("*")}
    calls = sum(later.model.asked.values())
    second = again(later, top={"tfds": True})
    assert not second.done.written and second.dropped == later.world.dropped
    assert sum(later.model.asked.values()) == calls
    assert {path: path.stat().st_mtime_ns for path in later.dataset.rglob("*")} == before


def test_caps_hold_and_cost_no_call(later: Story) -> None:
    calls = sum(later.model.asked.values())
    run = again(later, balance={"most_safe": 20, "most_per_category": 30, "most_per_subcategory": 9})
    records = [record for split in SPLITS for record in later.records(split)]
    kinds = Counter((r.get("harmful_category", "safe"), r.get("harmful_subcategory")) for r in records)
    plain = Counter(one["subcategory"] or "safe" for one in later.details())
    assert kinds["safe", None] == 20 and max(n for (kind, _), n in kinds.items() if kind != "safe") == 9
    assert Counter(run.dropped.values())["balance"] == N - len(later.world.dropped) - len(records) > 0
    assert sum(plain.values()) == len(records) and sum(later.model.asked.values()) == calls


def test_refusals_are_varied_by_asking_again_and_then_by_leaving_out(later: Story) -> None:
    run = again(later, ask={"most_alike": 0.3})
    labels = [one.label for one in run.done.made.chosen]
    openings = Counter(" ".join(label.refusal.split()[:2]) for label in labels)
    assert max(openings.values()) <= 0.3 * len(labels)
    assert "opening" in run.dropped.values() and openings["Sadly I"] > 0
    told = {text.rpartition("\n\n")[2] for _, text in later.model.asked if world_lib.OTHERWISE in text}
    assert told >= {'Let the answer that declines begin with other words than any of these: "i\'m sorry".'}
    assert {n for (_, text), n in later.model.asked.items() if world_lib.OTHERWISE in text} == {1}


def test_a_share_that_cannot_be_kept_is_an_error(later: Story) -> None:
    with pytest.raises(errors.UserError, match=r"most_alike=0\.01: .* begin in 5 ways"):
        again(later, ask={"most_alike": 0.01})


def test_languages_are_dealt_out_and_asked_for(later: Story) -> None:
    run = again(later, ask={"languages": ("English", "French")}, pictures={"against": ()})
    dealt = Counter(one.language for one in run.done.made.chosen)
    assert min(dealt.values()) > 80 and set(dealt) == {"English", "French"}
    french = {sha256 for sha256, text in later.model.asked if "answers in French" in text}
    assert dealt["French"] <= len(french)


def test_another_folder_of_pictures_needs_another_workdir(later: Story) -> None:
    config = made.config(later.world, later.model.url, pictures={"path": str(later.world.against)})
    with pytest.raises(errors.UserError, match=r"config\.pictures\.path"):
        made.curate(config, later.folder)


def test_pictures_that_change_places_are_read_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / "p").mkdir()
    for i in range(2):
        world_lib.draw(i).save(tmp_path / "p" / f"{i}.bmp")
        os.utime(tmp_path / "p" / f"{i}.bmp", ns=(0, 0))
    first, second = scan.scan(tmp_path / "p", tmp_path / "notes", "folder").pictures
    for old, new in (("0", "t"), ("1", "0"), ("t", "1")):
        (tmp_path / "p" / f"{old}.bmp").rename(tmp_path / "p" / f"{new}.bmp")
    found = scan.scan(tmp_path / "p", tmp_path / "notes", "folder").pictures
    assert [one.sha256 for one in found] == [second.sha256, first.sha256] and first.sha256 != second.sha256


def test_a_damaged_picture_of_the_set_is_written_again(later: Story) -> None:
    picture = later.dataset / "train" / later.records("train")[0]["image"]
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-1])
    assert again(later).done.written and picture.read_bytes() == whole


def test_kept_near_duplicates_are_on_one_side_of_the_split(later: Story) -> None:
    run = again(later, pictures={"on_near": "keep"})
    assert run.done.made.unique.near_kept == EACH
    side = {record["image"]: split for split in SPLITS for record in later.records(split)}
    pairs = {(side[f"e/near_{i:03d}.png"], side[f"d/first_{i:03d}.png"]) for i in range(EACH)}
    assert pairs == {("train", "train"), ("test", "test")}
