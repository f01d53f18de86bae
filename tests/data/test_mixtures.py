from __future__ import annotations

import json
import re

import pytest

from tests.data import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import mixtures
from vlguard_jax.data import templates

VICUNA = templates.get_template("vicuna_v1")
PATCHES = 4


@pytest.fixture
def tokenizer(tmp_path):
    return stand.make_tokenizer(tmp_path / "tokenizer", legacy=True)


def llava(tmp_path, *records, **settings) -> config.SourceSettings:
    path = stand.write_records(tmp_path / f"{len(list(tmp_path.glob('*.json')))}.json", list(records))
    for record in records:
        for image in record.images:
            stand.write_picture(tmp_path / "pictures" / image)
    return config.SourceSettings(path=path, images=str(tmp_path / "pictures"), **settings)


def plain(n: int) -> list:
    return [stand.record("What is this?", "A flyer.", id=f"t{i}") for i in range(n)]


def build(tokenizer, source, **settings) -> mixtures.Mixture:
    return mixtures.build(config.DataSettings(sources={"mine": source}, **settings), tokenizer, VICUNA, PATCHES)


def test_index_and_paths(tmp_path, tokenizer):
    shown = stand.record("<image>\nWhat is this?", "A flyer.", images=("a/b.png",), id="p")
    made = build(tokenizer, llava(tmp_path, *plain(1), shown))
    assert made.index.ids == ("t0", "p") and made.index.sources == ("mine", "mine") and len(made.index) == 2
    assert made.index.pictures.tolist() == [0, 1]
    assert made.index.modality_length.tolist() == [-5, 6]
    assert made.index.length.tolist() == [len(sample.tokens) for sample in made.samples]
    assert made.index.supervised.tolist() == [sample.num_supervised for sample in made.samples]
    assert 0 < made.index.supervised_share < 1
    assert made.image_paths(1) == [tmp_path / "pictures" / "a/b.png"] and made.image_paths(0) == []
    assert not made.stand_in


def test_progress_reaches_the_end(tmp_path, tokenizer):
    seen = []
    data = config.DataSettings(sources={"mine": llava(tmp_path, *plain(3))})
    mixtures.build(data, tokenizer, VICUNA, PATCHES, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_vlguard_source(tmp_path, tokenizer):
    values = [stand.vlguard_value(i, safe=bool(i)) for i in range(3)]
    (tmp_path / "train.json").write_text(json.dumps(values))
    for value in values:
        stand.write_picture(tmp_path / "train" / value["image"])
    (tmp_path / "vlguard.json").write_text('{"stand_in": true}')
    made = build(tokenizer, config.SourceSettings(format="vlguard", path=str(tmp_path), images=str(tmp_path / "train")))
    assert [len(record.turns) for record in made.records] == [2, 4, 4]
    assert made.stand_in


def test_seeded_sample(tmp_path, tokenizer):
    def chosen(**settings):
        return mixtures.read_sources({"mine": llava(tmp_path, *plain(20), **settings)})

    first = [record.id for record in chosen(count=5)]
    assert first == [record.id for record in chosen(count=5)] != [record.id for record in chosen(count=5, sample_seed=1)]
    assert len(set(first)) == 5 and len(chosen()) == 20
    with pytest.raises(errors.UserError, match=r"^config\.data\.sources\.mine\.count=21, but the source has only 20 conversations$"):
        chosen(count=21)


def test_excluded_ids(tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("t1\n\nt3\n")
    source = llava(tmp_path, *plain(4), exclude_ids=str(ids))
    assert [record.id for record in mixtures.read_sources({"mine": source})] == ["t0", "t2"]
    ids.write_text("t1\nt8\nt9\n")
    with pytest.raises(errors.UserError, match=r"ids\.txt: 2 of 3 ids are not in source 'mine', the first is 't8'$"):
        mixtures.read_sources({"mine": source})


def test_missing_pictures_are_counted_at_the_start(tmp_path):
    shown = [stand.record("<image>", "no.", images=(f"{i}.png",)) for i in range(5)]
    source = llava(tmp_path, *shown)
    for i in (0, 1, 2, 4):
        (tmp_path / "pictures" / f"{i}.png").unlink()
    with pytest.raises(errors.UserError, match=r"4 of 5 pictures of source 'mine' are missing, first: 0\.png, 1\.png, 2\.png; "):
        mixtures.read_sources({"mine": source})
    with pytest.raises(errors.UserError, match=r"^config\.data\.sources\.mine\.images is empty, but the source has pictures"):
        mixtures.read_sources({"mine": config.SourceSettings(path=source.path)})


ODD = [
    (stand.record("fox", "", id="odd"), r"WARNING: tokenization mismatch: 1 vs\. \d+\. \(ignored\)"),
    (stand.record("no tag", "no.", images=("a.png",), id="odd"), r"0 turns with a picture tag, 1 pictures"),
    (stand.record("<image>", "no.", images=("a.png", "b.png"), id="odd"), r"1 turns with a picture tag, 2 pictures"),
]


@pytest.mark.parametrize(("odd", "reason"), ODD)
def test_odd_records_are_an_error_or_a_listed_drop(tmp_path, tokenizer, odd, reason):
    source = llava(tmp_path, *plain(1), odd)
    with pytest.raises(errors.UserError, match=r"record 1 \(id 'odd'\): " + reason + r'; correct .*config\.data\.on_mismatch="ignore"'):
        build(tokenizer, source)
    made = build(tokenizer, source, on_mismatch="ignore")
    assert [record.id for record in made.records] == ["t0"] and len(made.index) == 1
    (drop,) = made.drops
    assert (drop.id, drop.source) == ("odd", "mine") and re.fullmatch(reason, drop.reason)
    mixtures.write_drops(made.drops, tmp_path / "skipped.jsonl")
    (line,) = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "odd" and json.loads(line)["schema"] == 1


def test_reference_policy(tmp_path, tokenizer):
    voided, untagged, several = (odd for odd, _ in ODD)
    made = build(tokenizer, llava(tmp_path, voided, untagged), on_mismatch="reference")
    assert made.index.supervised[0] == 0 < made.index.supervised[1]
    assert made.index.pictures.tolist() == [0, 0] and made.index.modality_length[1] > 0
    assert made.notes() == [
        "1 pictures are not used: cut off, or without a tag in the text",
        "1 conversations have no supervised token and teach nothing, the first is 'odd'",
    ]
    with pytest.raises(errors.UserError, match=r"1 turns with a picture tag, 2 pictures; correct or remove the record$"):
        build(tokenizer, llava(tmp_path, several), on_mismatch="reference")


def test_cut_conversations_are_named(tmp_path, tokenizer):
    source = llava(tmp_path, *plain(1), stand.record("fox", "dog " * 90 + "dog.", id="long"))
    assert build(tokenizer, source).notes() == []
    made = build(tokenizer, source, max_len=100)
    assert made.index.length[1] == 100 > made.index.length[0]
    assert made.notes() == ["1 conversations reach max_len=100 and end there, the first is 'long'"]


def test_unknown_format_and_empty_path():
    with pytest.raises(errors.UserError, match=r"^config\.data\.sources\.mine\.format='llva' is unknown; did you mean 'llava'\?$"):
        mixtures.read_sources({"mine": config.SourceSettings(format="llva", path="x")})
    with pytest.raises(errors.UserError, match=r"^config\.data\.sources\.mine\.path is empty"):
        mixtures.read_sources({"mine": config.SourceSettings()})
