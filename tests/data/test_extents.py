"""Pictures that take more the larger they are: counted before a step is planned, and never cut."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data import stand
from tests.data import tiled
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import images
from vlguard_jax.data import loader
from vlguard_jax.data import mixtures
from vlguard_jax.data import pictures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families import table
from vlguard_jax.families.chat import templates
from vlguard_jax.preparing import batch_rows

SIZES = {"a.png": (20, 12), "b.png": (7, 41), "c.png": (30, 30), "d.png": (1, 1)}  # 4, 5, 9 and 1 tiles
TILES = {"a.png": 4, "b.png": 5, "c.png": 9, "d.png": 1}


@pytest.fixture(autouse=True)
def family(monkeypatch):
    monkeypatch.setattr(table, "FAMILIES", (*table.FAMILIES, tiled.FAMILY))


def talk(*names: str, id: str, more: int = 0) -> types.Record:
    """A question for each picture, then one about none, with an answer of so many words more."""
    asked = [text for name in names or ("",) for text in (f"{'<image>' * bool(name)}\nfox?", "dog.")]
    return stand.record(*asked, "and?", "lazy " * more + "dog.", images=names, id=id)


def build(folder, *records, **settings) -> mixtures.Mixture:
    for i, (name, size) in enumerate(SIZES.items()):
        if not (folder / "p" / name).exists():
            stand.write_picture(folder / "p" / name, size, seed=i)
    source = config.SourceSettings(path=stand.write_records(folder / "f.json", list(records)), images=str(folder / "p"))
    data = config.DataSettings(sources={"s": source}, cache=str(folder / "cache"), **settings)
    tokenizer = stand.make_tokenizer(folder / "tokenizer", legacy=True)
    return mixtures.build(data, tokenizer, templates.get_template("vicuna_v1"), tiled.MODEL)


RECORDS = [
    talk("a.png", id="one"),
    talk("b.png", "c.png", "a.png", id="three"),
    talk(id="none"),
    talk("d.png", "d.png", id="twice"),
]


def test_every_conversation_is_counted_by_its_pictures_sizes(tmp_path):
    made = build(tmp_path, *RECORDS)
    units = [4, 18, 0, 2]
    assert made.index.pictures.tolist() == [1, 3, 0, 2] and made.index.units.tolist() == units
    assert made.index.slots.tolist() == [2 * 4 + 1, 2 * 18 + 3, 0, 2 * 2 + 2]
    tokenizer = made.tokenization.tokenizer
    for i, record in enumerate(RECORDS):
        sample = made.sample(i)
        text = sample.tokens[sample.picture < 0]
        assert made.index.length[i] == len(sample.tokens) == len(text) + made.index.slots[i]
        assert made.index.supervised[i] == sample.num_supervised > 0
        assert tokenizer.decode(text.tolist()).count("fox?") == max(1, len(record.images))
        widths = [int((sample.picture == n).sum()) for n in range(sample.num_pictures)]
        assert widths == [2 * TILES[name] + 1 for name in record.images]
        assert all(sample.place[sample.picture == n].tolist() == list(range(width)) for n, width in enumerate(widths))


def test_the_text_behind_pictures_is_cut_and_never_a_picture(tmp_path):
    whole = build(tmp_path, talk("c.png", id="c", more=60)).index
    end = int(np.flatnonzero(build(tmp_path, talk("c.png", id="c")).sample(0).picture >= 0)[-1]) + 1
    for max_len in (end, end + 1, int(whole.length[0]) - 1, int(whole.length[0])):
        made = build(tmp_path, talk("c.png", id="c", more=60), max_len=max_len)
        sample = made.sample(0)
        assert made.index.length.tolist() == [len(sample.tokens)] == [max_len]
        assert made.index.supervised.tolist() == [sample.num_supervised]
        assert (made.index.pictures[0], made.index.slots[0], (sample.picture == 0).sum()) == (1, 19, 19)
        assert made.notes()[0] == f"1 conversations reach max_len={max_len} and end there, the first is 'c'"
    record = r"f\.json: record 0 \(id 'c'\)"
    with pytest.raises(
        errors.UserError,
        match=rf"{record}: its pictures end at token {end}, beyond max_len={end - 1}, as with 1 conversations in all;"
        r" raise config\.data\.max_len, or leave such records out with config\.data\.on_bad_record=\"skip\"$",
    ):
        build(tmp_path, talk("c.png", id="c", more=60), max_len=end - 1)
    made = build(tmp_path, talk("c.png", id="c"), talk("d.png", id="d"), max_len=end - 1, on_bad_record="skip")
    assert made.index.ids == ("d",) and [drop.id for drop in made.drops] == ["c"]
    assert made.drops[0].reason == f"its pictures end at token {end}, beyond max_len={end - 1}"


def test_max_len_is_the_family_s(tmp_path):
    made = build(tmp_path, talk("c.png", id="c", more=200), talk(id="none", more=200))
    assert made.index.length.tolist() == [300, 300] and made.image_mode == "tiles"


def test_pictures_without_a_tag_take_nothing_and_their_text_is_cut(tmp_path):
    """As the reference trains on them."""
    record = stand.record("fox?", "dog " * 200 + "dog.", images=("a.png",), id="untagged")
    made = build(tmp_path, record, max_len=100, on_mismatch="reference")
    sample = made.sample(0)
    assert made.index.length.tolist() == [len(sample.tokens)] == [100]
    assert made.index.supervised.tolist() == [sample.num_supervised]
    assert made.index.pictures.tolist() == made.index.slots.tolist() == [0] and made.pictured(0).pictures == ()


@pytest.mark.parametrize("level", ["exists", "header", "decode"])
def test_sizes_are_read_once_and_remembered(tmp_path, monkeypatch, level):
    opened: list[str] = []
    inner = pictures.Store.open
    monkeypatch.setattr(pictures.Store, "open", lambda store, name: opened.append(name) or inner(store, name))
    first = build(tmp_path, *RECORDS, check_pictures=level)
    assert sorted(opened) == sorted(SIZES)
    again = build(tmp_path, *RECORDS, check_pictures=level)
    assert len(opened) == len(SIZES) and again.index.digest() == first.index.digest() and again.sizes == first.sizes
    # Another size: other counts, another plan.
    stand.write_picture(tmp_path / "p" / "a.png", (40, 40))
    changed = build(tmp_path, *RECORDS, check_pictures=level)
    assert opened[len(SIZES) :] == ["a.png"] and changed.index.units.tolist() == [16, 30, 0, 2]
    assert changed.index.digest() != first.index.digest()


def test_a_picture_beyond_the_family_s_limits(tmp_path):
    stand.write_picture(tmp_path / "p" / "a.png", (101, 5))
    with pytest.raises(
        errors.UserError, match=r"the first is a\.png of record 'one': 101 x 5 pixels are too wide; crop"
    ):
        build(tmp_path, *RECORDS, check_pictures="exists")
    made = build(tmp_path, *RECORDS, on_bad_record="skip")
    assert made.index.ids == ("none", "twice") and made.index.units.tolist() == [0, 2]


def test_a_picture_that_changed_its_size_since_it_was_checked(tmp_path):
    made = build(tmp_path, *RECORDS)
    stand.write_picture(tmp_path / "p" / "a.png", (19, 11))  # as many tiles
    assert made.pictured(0).pictures[0].extent == types.Extent(slots=9, units=4)
    stand.write_picture(tmp_path / "p" / "a.png", (21, 11))
    with pytest.raises(
        errors.UserError,
        match=r"^a\.png \(picture of .*record 0 \(id 'one'\)\) has another size than when it was checked; start again$",
    ):
        made.pictured(0)


@pytest.mark.parametrize("mode", ["pad", "pack"])
@pytest.mark.parametrize(("rows", "shards"), [(0, 1), (2, 1), (2, 2), (0, 4)])
def test_every_slot_of_a_batch_is_its_own_picture_s(tmp_path, mode, rows, shards):
    """Whatever the layout, and with as many hosts as shards."""
    made = build(tmp_path, *RECORDS, mode=mode, order="sequential", batch_size=4, group_size=2, length_multiple=8)
    data = config.DataSettings(mode=mode, order="sequential", batch_size=4, group_size=2, length_multiple=8)
    plan = plan_lib.BatchPlan(made.index, data, 0, plan_lib.Layout(rows, shards))
    ((_, batch),) = loader.Loader(plan, made, stop_step=1)
    room = plan.shapes[0].room
    assert batch.pictures["tiles"].shape[1:] == (shards * room.units, 3)
    assert batch.pictures["owner"].shape[1:] == (shards * room.slots,)
    seen = {}
    for conversation in batch_rows.read(batch, 0, 1, plan, made).conversations:
        record = RECORDS[made.index.ids.index(conversation.id)]
        assert [picture.name for picture in conversation.pictures] == list(record.images)
        for picture in conversation.pictures:
            loaded = images.load(tmp_path / "p" / picture.name, tiled.MODEL, "tiles")
            assert (picture.pixels == loaded.arrays["tiles"][0]).all()
            assert picture.slots == loaded.extent.slots
        seen[conversation.id] = conversation.tokens.tolist()
    assert seen == {id_: made.sample(i).tokens.tolist() for i, id_ in enumerate(made.index.ids)}
    for micro in range(len(batch.tokens)):
        slot, segments = batch.slot[micro], batch.segment_ids[micro]
        used = slot[slot >= 0]
        assert len(set(used.tolist())) == len(used)
        owner = batch.pictures["owner"][micro]
        assert (owner[used] >= 0).all() and (owner >= 0).sum() == len(used)
        per_shard = len(slot) // shards
        for row in range(len(slot)):
            inside = slot[row][slot[row] >= 0] // max(1, room.slots)
            assert (inside == row // per_shard).all()  # a shard's rows read their own pictures
            assert (np.diff(owner[slot[row][slot[row] >= 0]]) >= 0).all() and segments[row].max(initial=0) >= 0
    hosts = [list(loader.Loader(plan, made, stop_step=1, shards=[shard])) for shard in range(shards)]
    for name, whole in batch.pictures.items():
        np.testing.assert_array_equal(np.concatenate([host[0][1].pictures[name] for host in hosts], 1), whole)
    np.testing.assert_array_equal(np.concatenate([host[0][1].slot for host in hosts], 1), batch.slot)


def test_the_counts_of_texts_are_kept_whatever_the_pictures(tmp_path):
    """Only the sizes are looked at anew: the texts of a file are counted once."""
    build(tmp_path, *RECORDS)
    stand.write_picture(tmp_path / "p" / "c.png", (50, 50))
    build(tmp_path, *RECORDS)
    assert len(list((tmp_path / "cache" / "index").iterdir())) == 1
