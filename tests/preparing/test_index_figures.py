from __future__ import annotations

import dataclasses
import io
import json

import pytest

from tests.data import stand
from tests.preparing import batches
from vlguard_jax import config
from vlguard_jax import terminal
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.preparing import index_figures


@pytest.fixture
def report(tmp_path):
    return index_figures.measure(batches.build(tmp_path, batches.data(tmp_path)))


def test_figures_of_each_source_and_of_all(tmp_path):
    mixture = batches.build(tmp_path, batches.data(tmp_path))
    chats, texts, both = index_figures.measure(mixture).sources
    assert (chats.name, texts.name, both.name) == ("chats", "texts", index_figures.TOTAL)
    assert (chats.conversations, chats.pictures, texts.conversations, texts.pictures) == (6, 6, 3, 0)
    index = mixture.index
    assert both.tokens == chats.tokens + texts.tokens == index.length.sum()
    assert both.supervised == chats.supervised + texts.supervised == index.supervised.sum()
    assert both.supervised_share == index.supervised_share and both.longest == index.length.max() == both.p99
    assert chats.mean == index.length[:6].mean() and chats.p50 == sorted(index.length[:6])[2]
    for of, count in ((chats, 6), (texts, 3), (both, 9)):
        assert sum(of.histogram) == count and len(of.histogram) == len(both.histogram) <= index_figures.BINS


def test_histogram_bins_hold_the_lengths_they_name(tmp_path):
    mixture = batches.build(tmp_path, batches.data(tmp_path))
    report = index_figures.measure(mixture)
    for i, n in enumerate(report.sources[-1].histogram):
        low, high = i * report.bin_width + 1, (i + 1) * report.bin_width
        assert n == ((mixture.index.length >= low) & (mixture.index.length <= high)).sum()


@pytest.mark.parametrize(("longest", "width"), [(1, 1), (16, 1), (17, 2), (2048, 128), (2049, 256)])
def test_bin_width(longest, width):
    assert index_figures.bin_width(longest) == width


def test_cut_conversations_are_counted(tmp_path):
    report = index_figures.measure(batches.build(tmp_path, batches.data(tmp_path, max_len=50, on_mismatch="reference")))
    assert report.max_len == 50 and report.sources[-1].longest == 50
    assert report.sources[-1].cut >= 6


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    """The reasons are those that the data side gives for real bad records."""
    records = [
        stand.record("fox", "dog", id="good"),
        stand.record("fox", "", id="mismatch"),
        stand.record("<image>fox", "dog", id="no picture"),
        stand.record("<image>fox", "dog", images=("none.png",), id="missing"),
    ]
    values = [stand.as_json(r) for r in records] + [{"id": "malformed"}, {"id": "malformed too", "conversations": 3}]
    (tmp_path / "f.json").write_text(json.dumps(values))
    source = config.SourceSettings(path=str(tmp_path / "f.json"), images=str(tmp_path))
    data = batches.data(tmp_path, sources={"s": source}, on_bad_record="skip", on_mismatch="ignore")
    (found,) = index_figures.measure(batches.build(tmp_path, data)).sources
    assert found.conversations == 1
    assert found.left_out == {
        "malformed record": 2,
        "mismatch of text and tokens": 1,
        "pictures and picture tags do not match": 1,
        "picture missing or not readable": 1,
    }


def test_plan(tmp_path):
    data = batches.data(tmp_path, shapes=2)
    mixture = batches.build(tmp_path, data)
    made = plan_lib.BatchPlan(mixture.index, data, 3, plan_lib.Layout(2, 2), epochs=2.0)
    plan = index_figures.plan(made, 5)
    assert (plan.steps_per_epoch, plan.steps, plan.shards, plan.rows) == (3, 5, 2, 2)
    assert sum(s.steps for s in plan.shapes) == 5 and plan.computed_over_real == made.computed_over_real > 1
    assert [(s.units, s.slots) for s in plan.shapes] == [s.room for s in made.shapes]
    for shape in plan.shapes:
        assert shape.steps == sum(
            (made[i].shape.rows, made[i].shape.row_len) == (shape.rows, shape.row_len) for i in range(5)
        )


def test_stand_in_pictures_are_named(report):
    for stand_in in (False, True):
        out = io.StringIO()
        index_figures.show(dataclasses.replace(report, stand_in=stand_in), terminal.Console(file=out, width=100))
        assert ("STAND-IN PICTURES" in out.getvalue()) is stand_in


@pytest.mark.parametrize("width", [60, 132])
def test_nothing_is_shortened_in_a_narrow_terminal(tmp_path, report, width):
    out = io.StringIO()
    console = terminal.Console(file=out, width=width)
    index_figures.show(report, console)
    data = batches.data(tmp_path)
    made = plan_lib.BatchPlan(batches.build(tmp_path, data).index, data, 3)
    index_figures.show_plan(index_figures.plan(made, 3), console)
    text = out.getvalue()
    assert "\u2026" not in text and max(map(len, text.splitlines())) <= width
    for words in ("chats", "texts", index_figures.TOTAL, "learned share", "\u2588", "3 steps an epoch", "1 row shard"):
        assert words in text
    assert f"{report.sources[0].tokens:,}" in text


def test_json_holds_the_same(tmp_path, report):
    data = batches.data(tmp_path)
    plan = index_figures.plan(plan_lib.BatchPlan(batches.build(tmp_path, data).index, data, 3), 3)
    value = json.loads(json.dumps(index_figures.as_json(report, plan, seconds=1.5)))
    assert value["schema"] == 1 and value["seconds"] == 1.5
    assert value["sources"][0]["tokens"] == report.sources[0].tokens
    assert value["plan"]["computed_over_real"] == plan.computed_over_real
