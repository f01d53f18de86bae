from __future__ import annotations

import json
import random

import pytest

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.data import vlguard


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def read(path):
    return list(json_records.read(path, records.parse_llava))


def one(**changes):
    value = {
        "id": "a1",
        "image": "x/a.png",
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "No."}],
    }
    value.update(changes)
    return [{key: item for key, item in value.items() if item is not ...}]


def test_reading(tmp_path):
    several = one()[0] | {"id": 7, "image": ["b.png", "c.png"]}
    found = read(write(tmp_path / "f.json", [*one(), several, *one(image=..., id=...)]))
    assert [(r.id, r.images) for r in found] == [("a1", ("x/a.png",)), ("7", ("b.png", "c.png")), ("2", ())]
    assert [(turn.role, turn.text) for turn in found[0].turns] == [("human", "Hi"), ("gpt", "No.")]
    assert found[0].origin == f"{tmp_path / 'f.json'}: record 0 (id 'a1')"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('[{"id": 1},\n  {"id": }]', r"broken JSON at line 2, column 10: Expecting value$"),
        ({}, r"must hold a JSON list of records, or one JSON object a line, not a lone object$"),
        (one(id=[1]), r"record 0: 'id' must be a text or a number, not a list$"),
        (one(id=True), r"record 0: 'id' must be a text or a number, not true or false$"),
        (
            one(id="x" * 5000, conversations=[]),
            r"record 0 \(id 'x{100}'\.\.\. \(5,000 characters\)\) has no turns: .*$",
        ),
        (
            one(conversations=[{"from": "x" * 5000, "value": ""}]),
            r"is from 'x{100}'\.\.\. \(5,000 characters\); known: gpt, human, system$",
        ),
        (
            one(image="data:image/png;base64," + "A" * 32_000),
            r"image 'data:.{95}'\.\.\. \(32,022 characters\) is not a path; if it is .*$",
        ),
        (
            one(image="A" * 32_000),
            r"image 'A{100}'\.\.\. \(32,000 characters\) is not a path; if it is the picture itself, save that .*$",
        ),
        (
            one(image="https://a.org/b.png"),
            r"image 'https://a\.org/b\.png' is an address: download the picture and name its file$",
        ),
        (one(image="train\\a.png"), r"must be a path inside the picture folder, written with /$"),
        ([3], r"record 0 must be an object, not a number$"),
        (one(conversations=...), r"record 0 \(id 'a1'\) has no turns: 'conversations' must be a non-empty list$"),
        (one(conversations=[]), r"record 0 \(id 'a1'\) has no turns: 'conversations' must be a non-empty list$"),
        (
            one(conversations=[{"from": "gtp", "value": ""}]),
            r"record 0 \(id 'a1'\), turn 1 is from 'gtp'; did you mean 'gpt'\?$",
        ),
        (one(conversations=[{"from": "gpt"}]), r"record 0 \(id 'a1'\), turn 1 has no 'value'$"),
        (one(conversations=[{"from": "gpt", "value": 3}]), r"turn 1: 'value' must be a text, not a number$"),
        (one(image=None), r"record 0 \(id 'a1'\): 'image' must be a path or a list of paths, not null$"),
        (one(image=[]), r"'image' must be a path or a list of paths, not an empty list$"),
        (one(image="../a.png"), r"image '\.\./a\.png' must be a path inside the picture folder$"),
        (one(image="/a.png"), r"image '/a\.png' must be a path inside the picture folder$"),
        (one(image=""), r"image '' must be a path inside the picture folder$"),
    ],
)
def test_bad_files_are_named(tmp_path, value, message):
    path = write(tmp_path / "f.json", value)
    with pytest.raises(errors.UserError, match=r"^[^\n]*f\.json: ?" + ".*" + message):
        read(path)


def test_records_without_an_id_are_named_by_their_place(tmp_path):
    found = read(write(tmp_path / "f.json", [*one(id=None), *one(id=""), *one(id=...), *one(id=1.5)]))
    assert [r.id for r in found] == ["0", "1", "2", "1.5"]


def test_missing_and_undecodable_file(tmp_path):
    with pytest.raises(errors.UserError, match=r"no\.json: no such file$"):
        read(tmp_path / "no.json")
    (tmp_path / "f.json").write_bytes(b'["\xff"]')
    with pytest.raises(errors.UserError, match=r"f\.json: not UTF-8 text at byte 2; save it as UTF-8$"):
        read(tmp_path / "f.json")


@pytest.fixture
def items(tmp_path):
    values = [stand.vlguard_value(i, safe=i % 3 > 0) for i in range(12)]
    write(tmp_path / "test.json", values)
    return vlguard.read_items(tmp_path, "test")


def test_conversion_draws_only_for_safe_records(items):
    rng = random.Random(0)
    for item, record in zip(items, vlguard.convert(items, "mine"), strict=True):
        pairs = list(item.pairs)
        if item.safe:
            rng.shuffle(pairs)
        expected = [text for _, instruction, response in pairs for text in (instruction, response)]
        expected[0] = "<image>" + expected[0]
        assert [turn.text for turn in record.turns] == expected
        assert (record.images, record.source, record.category) == (
            (item.image,),
            "mine",
            None if item.safe else "privacy",
        )


def test_subsets(items):
    found = {name: vlguard.eval_items(items, name) for name in vlguard.SUBSETS}
    assert {name: len(questions) for name, questions in found.items()} == {
        "unsafes": 4,
        "safe_unsafes": 8,
        "safe_safes": 8,
    }
    first = found["unsafes"][0]
    assert (first.question, first.category, first.subcategory, first.subset) == (
        "Ask 0?",
        "privacy",
        "personal data",
        "unsafes",
    )
    assert found["safe_safes"][0].question == "Ask safe 1?" and found["safe_unsafes"][0].question == "Ask unsafe 1?"
    assert {name: vlguard.subset_count(name) for name in found} == {
        "unsafes": 442,
        "safe_unsafes": 558,
        "safe_safes": 558,
    }
    with pytest.raises(errors.UserError, match=r"no subset 'unsafe'; did you mean 'unsafes'\?$"):
        vlguard.eval_items(items, "unsafe")


def test_counts_are_checked(items, tmp_path):
    with pytest.raises(errors.UserError, match=r"4 unsafe and 8 safe records, VLGuard's test split has 442 and 558: "):
        vlguard.check_counts(items, "test", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"safe": "yes"}, r"'safe' must be true or false$"),
        ({"instr-resp": []}, r"'instr-resp' must be a list of 1 instruction-response pairs$"),
        ({"instr-resp": [{"instruction": "Hi"}]}, r"has no 'response'$"),
        ({"image": 3}, r"'image' must be a text, not a number$"),
        ({"harmful_category": None}, r"'harmful_category' must be a text, not null$"),
    ],
)
def test_bad_vlguard_records_are_named(tmp_path, change, message):
    write(tmp_path / "train.json", [stand.vlguard_value(0, safe=False) | change])
    with pytest.raises(errors.UserError, match=r"train\.json: record 0 \(id 'v0'\):? " + message):
        vlguard.read_items(tmp_path, "train")


def test_stand_in_mark(tmp_path):
    (tmp_path / "set" / "train").mkdir(parents=True)
    assert not vlguard.is_stand_in(tmp_path / "set" / "train")
    write(tmp_path / "set" / vlguard.NOTE_FILE, {"stand_in": True})
    assert vlguard.is_stand_in(tmp_path / "set" / "train") and vlguard.is_stand_in(tmp_path / "set")
