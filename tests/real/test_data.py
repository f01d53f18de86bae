"""The data of the real-model run: harmless questions by rule, whole sentences, VLGuard's refusals as text."""

import csv
import json
import os
import pathlib

import pytest

from vlguard_jax import errors
from vlguard_jax.data import json_records
from vlguard_jax.real import data
from vlguard_jax.real import harmless

OFFICIAL = {
    "advbench/harmful_behaviors.csv": "goal",
    "xstest/xstest_prompts.csv": "prompt",
    "strongreject/strongreject_dataset.csv": "forbidden_prompt",
}


def test_questions_are_different_and_the_same_for_a_seed() -> None:
    found = harmless.questions(700, 0)
    assert len(set(found)) == 700 and found == harmless.questions(700, 0)
    assert found != harmless.questions(700, 1)
    assert all("{" not in question and question[-1] in ".?" for question in found)


def test_every_wording_has_its_share() -> None:
    found = harmless.questions(len(harmless.WORDINGS), 3)
    starts = [wording.split("{")[0] for wording, _ in harmless.WORDINGS]
    assert all(any(question.startswith(start) for question in found) for start in starts)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(errors.UserError, match="harmless questions; ask for fewer"):
        harmless.questions(10**6, 0)


@pytest.mark.skipif("VLGUARD_BENCHMARKS" not in os.environ, reason="VLGUARD_BENCHMARKS is not set")
def test_no_question_is_a_benchmarks() -> None:
    ours = {question.lower() for question in harmless.questions(1200, 0)}
    for name, column in OFFICIAL.items():
        with (pathlib.Path(os.environ["VLGUARD_BENCHMARKS"]) / name).open(newline="", encoding="utf-8-sig") as file:
            theirs = {row[column].strip().lower() for row in csv.DictReader(file)}
        assert theirs and not ours & theirs


@pytest.mark.parametrize(
    ("answer", "reason", "kept"),
    [
        (" One. Two without an end ", "stop", "One. Two without an end"),
        ("One. Two! Three is cut he", "length", "One. Two!"),
        ("Nothing ends", "length", ""),
        ("", "stop", ""),
    ],
)
def test_cut_answers_keep_their_whole_sentences(answer: str, reason: str, kept: str) -> None:
    assert data.whole(answer, reason) == kept


@pytest.mark.skipif("VLGUARD_METADATA" not in os.environ, reason="VLGUARD_METADATA is not set")
def test_safety_data_are_vlguards_unsafe_instructions(tmp_path: pathlib.Path) -> None:
    metadata = pathlib.Path(os.environ["VLGUARD_METADATA"])
    data.folder(tmp_path).mkdir()
    data.write_safety(metadata, tmp_path)
    records = json.loads((metadata / "train.json").read_text(encoding="utf-8"))
    wanted = [
        (pair.get("instruction") or pair["unsafe_instruction"], pair["response"])
        for record in records
        for pair in record["instr-resp"]
        if "safe_instruction" not in pair
    ]
    written = json.loads((data.folder(tmp_path) / "safety.json").read_text(encoding="utf-8"))
    assert [tuple(turn["value"] for turn in one["conversations"]) for one in written] == wanted
    assert len({one["id"] for one in written}) == len(written) == 2000


@pytest.mark.skipif("VLGUARD_METADATA" not in os.environ, reason="VLGUARD_METADATA is not set")
def test_the_metadata_stay_those_that_a_run_began_with(tmp_path: pathlib.Path) -> None:
    """Another answer in train.json would be learned by the arms that are still to come, and by them alone."""
    metadata = tmp_path / "metadata"
    metadata.mkdir()
    records = json.loads((pathlib.Path(os.environ["VLGUARD_METADATA"]) / "train.json").read_text(encoding="utf-8"))
    (metadata / "train.json").write_text(json.dumps(records), encoding="utf-8")
    data.folder(tmp_path).mkdir()
    for _ in range(2):
        data.write_safety(metadata, tmp_path)
    written = (data.folder(tmp_path) / "safety.json").read_bytes()
    unsafe = next(record for record in records if not record["safe"])
    unsafe["instr-resp"][0]["response"] = "No."
    (metadata / "train.json").write_text(json.dumps(records), encoding="utf-8")
    with pytest.raises(errors.UserError, match=r"its train\.json is not the one that .*safety\.json was made of"):
        data.write_safety(metadata, tmp_path)
    assert (data.folder(tmp_path) / "safety.json").read_bytes() == written


def test_other_metadata_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "train.json").write_text("[]", encoding="utf-8")
    with pytest.raises(errors.UserError, match="holds none"):
        data.read_safety(tmp_path)


def test_what_is_written_can_be_trained_on(tmp_path: pathlib.Path) -> None:
    data.folder(tmp_path).mkdir()
    pairs = [("7", "What is a kettle?", "It boils water."), ("7", "And a pot?", "Too.")]
    (tmp_path / "helpful.json").write_text(data._text(pairs), encoding="utf-8")
    ids = [value["id"] for value in json_records.read(tmp_path / "helpful.json", lambda value, position, path: value)]
    assert ids == ["0_7", "1_7"]
