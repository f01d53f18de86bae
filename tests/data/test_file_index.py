from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest

from tests.data import stand
from vlguard_jax import types
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import file_index
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.data import tokenization as tokenization_lib
from vlguard_jax.families.chat import templates

VICUNA = templates.get_template("vicuna_v1")
FOUR_SLOTS = [types.Extent(slots=4, units=1)]


@pytest.fixture
def tokenization(tmp_path):
    return tokenization_lib.Tokenization(
        stand.make_tokenizer(tmp_path / "tokenizer", legacy=True), VICUNA, stand.sees(), 200
    )


def made(n: int) -> list:
    shown = [
        stand.record("<image>\nWhat is this?", "A flyer." * (i % 7 + 1), images=(f"a/{i}.png",), id=f"p{i}")
        for i in range(0, n, 2)
    ]
    return shown + [stand.record("fox " * i, "dog.", id=f"t{i % 3}") for i in range(1, n, 2)]


def read(tmp_path, values) -> json_records.JsonRecords:
    (tmp_path / "f.json").write_text(json.dumps(values))
    return json_records.read(tmp_path / "f.json", records.parse_llava)


def same(a: file_index.FileIndex, b: file_index.FileIndex) -> bool:
    counts = all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("length", "pictures", "supervised", "modality_length")
    )
    return counts and (a.ids, a.images, a.categories, a.problems) == (b.ids, b.images, b.categories, b.problems)


def test_counts_are_those_of_the_samples(tmp_path, tokenization):
    found = read(tmp_path, [stand.as_json(record) for record in made(8)])
    index = file_index.build(found, tokenization)
    samples = [tokenization.sample(record, FOUR_SLOTS) for record in found]
    assert index.length.tolist() == [len(sample.tokens) for sample in samples]
    assert index.supervised.tolist() == [sample.num_supervised for sample in samples]
    assert index.pictures.tolist() == [1] * 4 + [0] * 4
    assert index.modality_length.tolist() == [6, 8, 10, 12, -2, -4, -6, -8]
    assert index.images[:5] == (("a/0.png",), ("a/2.png",), ("a/4.png",), ("a/6.png",), ())
    assert index.ids[4:] == ("t1~1", "t0", "t2", "t1~2") and index.repeated == {"t1"}
    assert index.problems == {}


def test_problems_are_kept_and_named(tmp_path, tokenization):
    good = stand.as_json(stand.record("fox", "dog.", id="good"))
    wrong_order = {"id": "turns", "conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]}
    values = [
        {**good, "harmful_category": "privacy", "harmful_subcategory": "personal data"},
        {**good, "id": "path", "image": "../a.png"},
        7,
        wrong_order,
        stand.as_json(stand.record("fox", "", id="voided")),
        stand.as_json(stand.record("no tag", "no.", images=("a.png",), id="untagged")),
        stand.as_json(stand.record("<image> tag", "no.", id="literal")),
        stand.as_json(stand.record("<image>", "no.", images=("a.png", "b.png"), id="several")),
        stand.as_json(stand.record("<image>", "no.", "<image>", "no.", images=("a.png",), id="fewer")),
    ]
    index = file_index.build(read(tmp_path, values), tokenization)
    kinds = {i: problem.kind for i, problem in index.problems.items()}
    assert kinds == {
        1: "record",
        2: "record",
        3: "record",
        4: "tokens",
        5: "tag",
        6: "tag",
        7: "pictures",
        8: "pictures",
    }
    reasons = {i: problem.reason for i, problem in index.problems.items()}
    assert "record 1 (id 'path'): image '../a.png' must be a path inside" in reasons[1]
    assert "record 2 must be an object, not a number" in reasons[2]
    assert "record 3 (id 'turns'): turn 2 is from 'human', expected 'gpt'" in reasons[3]
    assert reasons[6] == "1 turns with a picture tag, 0 pictures" and index.problems[6].origin.endswith(
        "record 6 (id 'literal')"
    )
    assert index.categories[0] == ("privacy", "personal data") and index.categories[4] == ("", "")
    assert index.length[[1, 2, 3, 8]].tolist() == [0] * 4 and index.length[[0, 4, 5, 6, 7]].min() > 0


def test_several_processes_count_the_same(tmp_path, tokenization, monkeypatch):
    found = read(tmp_path, [stand.as_json(record) for record in made(50)] + [3])
    alone = file_index.build(found, tokenization)
    monkeypatch.setattr(file_index, "PART", 20)
    monkeypatch.setattr(file_index, "PARALLEL_FROM", 10)
    seen = []
    together = file_index.build(found, tokenization, progress=lambda done, total: seen.append((done, total)))
    assert same(alone, together) and seen == [(20, 51), (40, 51), (51, 51)]


def test_stored_index_is_found_by_content_and_tokenization(tmp_path, tokenization, monkeypatch):
    values = [stand.as_json(record) for record in made(8)] + [3]
    found = read(tmp_path, values)
    cache = tmp_path / "cache"
    first = file_index.build_or_load(found, "content", tokenization, cache)
    built = []
    whole = file_index.build
    monkeypatch.setattr(file_index, "build", lambda *args: built.append(1) or whole(*args))
    assert same(first, file_index.build_or_load(found, "content", tokenization, cache)) and not built
    for content, other in (
        ("other", tokenization),
        ("content", dataclasses.replace(tokenization, model=stand.sees(42))),
    ):
        file_index.build_or_load(found, content, other, cache)
        built.pop()
    # A file that is not whole is made again.
    for path in (cache / "index").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert same(first, file_index.build_or_load(found, "content", tokenization, cache)) and built


def test_a_stored_index_with_fewer_pictures_than_none_is_made_again(tmp_path, tokenization):
    found = read(tmp_path, [stand.as_json(record) for record in made(8)])
    first = file_index.build_or_load(found, "content", tokenization, tmp_path)
    (entry,) = (tmp_path / "index").iterdir()
    arrays = cache_lib.load_arrays(tmp_path, "index", entry.name)
    arrays["named"][:2] += [9, -9]
    cache_lib.save_arrays(tmp_path, "index", entry.name, arrays)
    assert same(first, file_index.build_or_load(found, "content", tokenization, tmp_path))


def test_content_hash_follows_the_file(tmp_path):
    path = tmp_path / "f.json"
    path.write_text("a")
    first = file_index.content_hash(path, tmp_path / "cache")
    assert first == file_index.content_hash(path, tmp_path / "cache")
    path.write_text("bb")
    assert first != file_index.content_hash(path, tmp_path / "cache")


def test_tokenization_in_another_process(tokenization):
    copy = pickle.loads(pickle.dumps(tokenization))
    record = stand.record("<image>\nfox", "dog.", images=("a.png",))
    assert copy.fingerprint == tokenization.fingerprint
    np.testing.assert_array_equal(
        copy.sample(record, FOUR_SLOTS).tokens, tokenization.sample(record, FOUR_SLOTS).tokens
    )
