from __future__ import annotations

import json
import pathlib
import pickle
import re

import numpy as np
import pytest

from tests.data import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import images
from vlguard_jax.data import mixtures
from vlguard_jax.families.chat import templates

VICUNA = templates.get_template("vicuna_v1")
MODEL = stand.sees()


@pytest.fixture
def tokenizer(tmp_path):
    return stand.make_tokenizer(tmp_path / "tokenizer", legacy=True)


def llava(tmp_path, *records, **settings) -> config.SourceSettings:
    path = stand.write_records(tmp_path / f"{len(list(tmp_path.glob('*.json')))}.json", list(records))
    (tmp_path / "pictures").mkdir(exist_ok=True)
    for record in records:
        for image in record.images:
            stand.write_picture(tmp_path / "pictures" / image)
    return config.SourceSettings(path=path, images=str(tmp_path / "pictures"), **settings)


def plain(n: int) -> list:
    return [stand.record("What is this?", "A flyer.", id=f"t{i}") for i in range(n)]


def build(tokenizer, source, problems_file=None, **settings) -> mixtures.Mixture:
    data = config.DataSettings(sources={"mine": source}, **settings)
    return mixtures.build(data, tokenizer, VICUNA, MODEL, problems_file=problems_file)


def test_index_and_pictures(tmp_path, tokenizer):
    shown = stand.record("<image>\nWhat is this?", "A flyer.", images=("a/b.png",), id="p")
    made = build(tokenizer, llava(tmp_path, *plain(1), shown))
    assert (
        made.index.ids == ("t0", "p") and made.index.source_names == ("mine",) and made.index.source.tolist() == [0, 0]
    )
    assert made.index.pictures.tolist() == [0, 1]
    assert made.index.modality_length.tolist() == [-5, 6]
    assert made.index.length.tolist() == [len(made.sample(i).tokens) for i in range(2)]
    assert made.index.supervised.tolist() == [made.sample(i).num_supervised for i in range(2)]
    assert 0 < made.index.supervised_share < 1
    assert (made.index.units.tolist(), made.index.slots.tolist()) == ([0, 1], [0, 4])
    (shown_at_step,) = made.pictured(1).pictures
    expected = images.load(tmp_path / "pictures/a/b.png", MODEL, "pad")
    assert shown_at_step.extent == expected.extent == types.Extent(slots=4, units=1)
    np.testing.assert_array_equal(shown_at_step.arrays["images"], expected.arrays["images"])
    assert made.pictured(0).pictures == () and not made.stand_in
    (tmp_path / "pictures/a/b.png").write_bytes(b"no picture")
    with pytest.raises(errors.UserError, match=r"^a/b\.png: .* \(picture of .*: record 1 \(id 'p'\)\)"):
        made.pictured(1)


def test_another_process_reads_the_same(tmp_path, tokenizer):
    shown = stand.record("<image>\nWhat is this?", "A flyer.", images=("a/b.png",), id="p")
    made = build(tokenizer, llava(tmp_path, *plain(1), shown))
    made.sample(0)
    copy = pickle.loads(pickle.dumps(made))
    assert [copy.record(i) for i in range(2)] == [made.record(i) for i in range(2)]
    assert copy.sample(1).tokens.tolist() == made.sample(1).tokens.tolist()
    (mine,), (theirs,) = made.pictured(1).pictures, copy.pictured(1).pictures
    np.testing.assert_array_equal(mine.arrays["images"], theirs.arrays["images"])


def test_progress_reaches_the_end(tmp_path, tokenizer):
    seen = []
    # A cache of its own: another test may have counted the same conversations.
    data = config.DataSettings(sources={"mine": llava(tmp_path, *plain(3))}, cache=str(tmp_path / "cache"))
    mixtures.build(data, tokenizer, VICUNA, MODEL, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 3)]


def test_vlguard_source(tmp_path, tokenizer):
    values = [stand.vlguard_value(i, safe=bool(i)) for i in range(3)]
    (tmp_path / "train.json").write_text(json.dumps(values))
    for value in values:
        stand.write_picture(tmp_path / "train" / value["image"])
    (tmp_path / "vlguard.json").write_text('{"stand_in": true}')
    made = build(tokenizer, config.SourceSettings(format="vlguard", path=str(tmp_path), images=str(tmp_path / "train")))
    assert [len(made.record(i).turns) for i in range(3)] == [2, 4, 4]
    assert made.stand_in


def test_alpaca_source_is_text_only(tmp_path, tokenizer):
    values = [
        {"instruction": "Name three fruits.", "input": "", "output": "apples"},
        {"instruction": "fox", "input": "dog", "output": "no."},
    ]
    (tmp_path / "f.json").write_text(json.dumps(values))
    made = build(tokenizer, config.SourceSettings(format="alpaca", path=str(tmp_path / "f.json")))
    assert [[turn.text for turn in made.record(i).turns] for i in range(2)] == [
        ["Name three fruits.", "apples"],
        ["fox\ndog", "no."],
    ]
    assert made.index.ids == ("0", "1") and made.index.pictures.tolist() == [0, 0] and made.index.supervised.min() > 0
    (tmp_path / "g.json").write_text(json.dumps([{"instruction": "fox"}]))
    with pytest.raises(
        errors.UserError, match=r"g\.json: record 0 \(id '0'\) has no 'output'; .*on_bad_record=\"skip\""
    ):
        build(tokenizer, config.SourceSettings(format="alpaca", path=str(tmp_path / "g.json")))


def test_several_sources_in_the_order_of_the_config(tmp_path, tokenizer):
    sources = {"b": llava(tmp_path, *plain(2)), "a": llava(tmp_path, *plain(3))}
    made = mixtures.build(config.DataSettings(sources=sources), tokenizer, VICUNA, MODEL)
    assert made.index.source_names == ("b", "a") and made.index.source.tolist() == [0, 0, 1, 1, 1]
    assert made.position.tolist() == [0, 1, 0, 1, 2] and [made.source(i).name for i in (0, 4)] == ["b", "a"]


def test_weight_repeats_conversations_under_names_of_their_own(tmp_path, tokenizer):
    made = build(tokenizer, llava(tmp_path, *plain(4), weight=2.5))
    assert made.index.ids[:8] == ("t0", "t1", "t2", "t3", "t0*2", "t1*2", "t2*2", "t3*2")
    assert len(made.index) == 10 and all(id_.endswith("*3") for id_ in made.index.ids[8:])
    assert len(set(made.index.ids)) == 10
    assert len(build(tokenizer, llava(tmp_path, *plain(4), weight=0.5)).index) == 2


def test_missing_pictures_are_counted_and_listed_at_the_start(tmp_path, tokenizer):
    shown = [stand.record("<image>", "no.", images=(f"{i}.png",), id=str(i)) for i in range(5)]
    source = llava(tmp_path, *shown)
    for i in (0, 1, 2, 4):
        (tmp_path / "pictures" / f"{i}.png").unlink()
    with pytest.raises(
        errors.UserError,
        match=r"4 of 5 pictures of source 'mine' are missing \(all of them: .*bad_pictures\.txt\), the first is"
        r" 0\.png of record '0'; ",
    ) as error:
        build(tokenizer, source, problems_file=tmp_path / "run" / "bad_pictures.txt")
    assert "\n" not in str(error.value)
    assert [line.split("\t")[0] for line in (tmp_path / "run/bad_pictures.txt").read_text().splitlines()] == [
        f"{i}.png" for i in (0, 1, 2, 4)
    ]
    made = build(tokenizer, source, on_bad_record="skip")
    assert made.index.ids == ("3",) and [drop.id for drop in made.drops] == ["0", "1", "2", "4"]
    assert made.drops[0].reason.startswith("picture 0.png: ")
    with pytest.raises(
        errors.UserError, match=r"^config\.data\.sources\.mine\.images is empty, but the source has pictures"
    ):
        build(tokenizer, config.SourceSettings(path=source.path))


ODD = [
    (
        stand.record("fox", "", id="odd"),
        r"WARNING: tokenization mismatch: 1 vs\. \d+\. \(ignored\): turn 2, from 'gpt', is empty",
    ),
    (stand.record("no tag", "no.", images=("a.png",), id="odd"), r"0 turns with a picture tag, 1 pictures"),
    (stand.record("<image>", "no.", images=("a.png", "b.png"), id="odd"), r"1 turns with a picture tag, 2 pictures"),
    (stand.record("a literal <image>", "no.", id="odd"), r"1 turns with a picture tag, 0 pictures"),
]


@pytest.mark.parametrize(("odd", "reason"), ODD)
def test_odd_records_are_an_error_or_a_listed_drop(tmp_path, tokenizer, odd, reason):
    source = llava(tmp_path, *plain(1), odd)
    with pytest.raises(
        errors.UserError, match=r"record 1 \(id 'odd'\): " + reason + r'; correct .*config\.data\.on_mismatch="ignore"'
    ):
        build(tokenizer, source)
    made = build(tokenizer, source, on_mismatch="ignore")
    assert made.index.ids == ("t0",)
    (drop,) = made.drops
    assert (drop.id, drop.source) == ("odd", "mine") and re.fullmatch(reason, drop.reason)
    mixtures.write_drops(made.drops, tmp_path / "skipped.jsonl")
    (line,) = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "odd" and json.loads(line)["schema"] == 1


def test_reference_policy(tmp_path, tokenizer):
    voided, untagged, several, literal = (odd for odd, _ in ODD)
    made = build(tokenizer, llava(tmp_path, voided, untagged, literal), on_mismatch="reference")
    assert made.index.supervised[0] == 0 < made.index.supervised[1:].min()
    assert (
        made.index.pictures.tolist() == [0, 0, 0] and made.index.modality_length[1] > 0 > made.index.modality_length[2]
    )
    assert made.notes() == [
        "1 pictures are not used: cut off, or without a tag in the text",
        "1 conversations have no supervised token and teach nothing, the first is 'odd~1'",
        "1 id names several conversations; they are told apart as ID~1, ID~2, ...",
    ]
    with pytest.raises(
        errors.UserError, match=r"1 turns with a picture tag, 2 pictures; correct or remove the record$"
    ):
        build(tokenizer, llava(tmp_path, several), on_mismatch="reference")


def test_malformed_records_end_the_run_or_are_skipped(tmp_path, tokenizer):
    source = llava(tmp_path, *plain(2))
    values = json.loads(pathlib.Path(source.path).read_text())
    values[1]["conversations"][1]["from"] = "human"
    values += [{"id": "typed", "conversations": "none"}, {**values[0], "id": "far", "image": "../../etc/a.png"}]
    (tmp_path / "bad.json").write_text(json.dumps(values))
    source = config.SourceSettings(path=str(tmp_path / "bad.json"), images=source.images)
    with pytest.raises(
        errors.UserError,
        match=r"^[^\n]*bad\.json: record 1 \(id 't1'\): turn \d is from 'human', expected 'gpt'; .*\"skip\"",
    ):
        build(tokenizer, source)
    made = build(tokenizer, source, on_bad_record="skip")
    assert made.index.ids == ("t0",)
    assert [drop.source for drop in made.drops] == ["mine"] * 3 and "inside the picture folder" in made.drops[2].reason


def test_cut_conversations_are_named(tmp_path, tokenizer):
    source = llava(tmp_path, *plain(1), stand.record("fox", "dog " * 90 + "dog.", id="long"))
    assert build(tokenizer, source).notes() == []
    made = build(tokenizer, source, max_len=100)
    assert made.index.length[1] == 100 > made.index.length[0]
    assert made.notes() == ["1 conversations reach max_len=100 and end there, the first is 'long'"]


@pytest.mark.parametrize(("format_", "hinted"), [("llava", False), ("vlguard", True)])
def test_stand_ins_are_offered_only_for_vlguard(tmp_path, tokenizer, format_, hinted):
    """`prepare vlguard` can draw no other source's pictures."""
    plain_value = stand.as_json(stand.record("<image>\nAsk?", "No.", images=("a.jpg",)))
    value = stand.vlguard_value(0, safe=False) if format_ == "vlguard" else plain_value
    (tmp_path / "pictures").mkdir()
    (tmp_path / "train.json").write_text(json.dumps([value]))
    source = config.SourceSettings(format=format_, path=str(tmp_path / "train.json"), images=str(tmp_path / "pictures"))
    with pytest.raises(
        errors.UserError, match=r"1 of 1 pictures of source 'mine' are missing.*download them"
    ) as caught:
        build(tokenizer, source)
    assert ("stand_in_images" in str(caught.value)) == hinted


def _texts(value: object) -> list[tuple[dict, str]]:
    """(object, key) of every text in a JSON value."""
    if isinstance(value, list):
        return [place for one in value for place in _texts(one)]
    assert isinstance(value, dict)
    here = [(value, key) for key, text in value.items() if isinstance(text, str)]
    return here + [place for inner in value.values() if isinstance(inner, list) for place in _texts(inner)]


@pytest.mark.parametrize("format_", ["llava", "alpaca", "vlguard"])
@pytest.mark.parametrize("lines", [False, True])
def test_half_of_a_surrogate_pair_anywhere_names_its_record(tmp_path, tokenizer, format_, lines):
    """In a turn, an id, a category, a picture's name: the record can be left out, like any malformed one."""
    sound = {
        "llava": stand.as_json(stand.record("<image>\nWhat is this?", "A flyer.", images=("set/0.jpg",), id="p"))
        | {"harmful_category": "c"},
        "alpaca": {"id": "p", "instruction": "fox", "input": "dog", "output": "no.", "category": "c"},
        "vlguard": stand.vlguard_value(0, safe=False),
    }[format_]
    stand.write_picture(tmp_path / "pictures" / "set" / "0.jpg")
    for i in range(len(_texts(sound))):
        values = [json.loads(json.dumps(sound)) for _ in range(3)]
        broken, key = _texts(values[1])[i]
        broken[key] += " half \ud83d pair"
        path = tmp_path / f"{i}.json"
        path.write_text("\n".join(map(json.dumps, values)) if lines else json.dumps(values))
        source = config.SourceSettings(format=format_, path=str(path), images=str(tmp_path / "pictures"))
        with pytest.raises(
            errors.UserError, match=rf"{i}\.json: record 1: half of a surrogate pair .*on_bad_record=\"skip\""
        ):
            build(tokenizer, source)
        made = build(tokenizer, source, on_bad_record="skip")
        assert len(made.index) == 2 and [drop.origin for drop in made.drops] == ["record 1"]
        mixtures.write_drops(made.drops, tmp_path / "skipped.jsonl")
        assert "half of a surrogate pair" in json.loads((tmp_path / "skipped.jsonl").read_text())["reason"]


def test_malformed_records_are_no_repeated_ids(tmp_path, tokenizer):
    values = [stand.as_json(record) for record in plain(3)]
    del values[0]["conversations"], values[1]["conversations"]
    (tmp_path / "f.json").write_text(json.dumps(values))
    made = build(tokenizer, config.SourceSettings(path=str(tmp_path / "f.json")), on_bad_record="skip")
    assert [(drop.id, drop.origin) for drop in made.drops] == [
        ("", "record 0"),
        ("", "record 1"),
    ] and not made.repeated_ids


@pytest.mark.parametrize(("setting", "used"), [("auto", "pad"), ("pad", "pad"), ("crop", "crop")])
def test_pictures_are_prepared_as_the_config_says(tmp_path, tokenizer, setting, used):
    source = llava(tmp_path, stand.record("<image>", "no.", images=("a.png",)))
    data = config.DataSettings(sources={"mine": source})
    made = mixtures.build(data, tokenizer, VICUNA, MODEL, setting)
    expected = images.load(tmp_path / "pictures/a.png", MODEL, used).arrays["images"]
    np.testing.assert_array_equal(made.pictured(0).pictures[0].arrays["images"], expected)


def test_a_way_to_prepare_pictures_that_the_family_has_not(tmp_path, tokenizer):
    data = config.DataSettings(sources={"mine": llava(tmp_path, *plain(1))})
    message = r"^config\.model\.image_mode='anyres' is not a mode of a llava model; take 'pad' or 'crop' or 'auto' \("
    with pytest.raises(errors.UserError, match=message):
        mixtures.build(data, tokenizer, VICUNA, MODEL, "anyres")


def test_a_language_model_takes_texts_only(tmp_path, tokenizer):
    made = mixtures.build(
        config.DataSettings(sources={"mine": llava(tmp_path, *plain(2))}), tokenizer, VICUNA, stand.blind()
    )
    assert made.image_mode == "none" and made.index.units.tolist() == made.index.slots.tolist() == [0, 0]
    data = config.DataSettings(sources={"mine": llava(tmp_path, stand.record("<image>", "no.", images=("a.png",)))})
    with pytest.raises(errors.UserError, match=r"^the conversations have pictures, but the model has no vision tower$"):
        mixtures.build(data, tokenizer, VICUNA, stand.blind())


def test_max_len_is_the_family_s_unless_the_config_says_otherwise(tmp_path, tokenizer):
    source = llava(tmp_path, stand.record("fox", "dog " * 2000 + "dog.", id="long"))
    assert build(tokenizer, source).index.length.tolist() == [2048]
    assert build(tokenizer, source, max_len=100).index.length.tolist() == [100]
