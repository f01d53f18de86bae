from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.data import stand
from tests.preparing import batches
from vlguard_jax import types
from vlguard_jax.data import images
from vlguard_jax.preparing import batch_rows

LAYOUTS = [
    {},
    {"rows": 2},
    {"rows": 2, "shards": 2},
    {"mode": "pack"},
    {"mode": "pack", "shards": 2, "max_row_len": 2000},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("number", [0, 1])
def test_every_conversation_is_what_the_mixture_says(tmp_path, layout, number):
    """Everything is read from the arrays, so it must come back as it went in, wherever it lies."""
    step, mixture = batches.step(tmp_path, number, **layout)
    of = {id_: i for i, id_ in enumerate(mixture.index.ids)}
    assert sorted(c.id for c in step.conversations) == sorted(mixture.index.ids[4 * number : 4 * number + 4])
    for c in step.conversations:
        i = of[c.id]
        sample = mixture.sample(i)
        np.testing.assert_array_equal(c.tokens, sample.tokens)
        kinds = [run.kind for run in c.runs for _ in range(run.count)]
        wanted = np.where(
            sample.picture >= 0, "picture", np.where(sample.labels != types.IGNORE_LABEL, "learned", "read")
        )
        assert kinds == wanted.tolist() and [run.start for run in c.runs[1:]] == [run.stop for run in c.runs[:-1]]
        assert c.count(batch_rows.LEARNED) == mixture.index.supervised[i] and c.last_position == len(c.tokens) - 1
        assert c.source == mixture.index.source_names[mixture.index.source[i]]
        assert c.share == pytest.approx(c.token_weight * mixture.index.supervised[i], rel=1e-6)
        record = mixture.record(i)
        assert [p.name for p in c.pictures] == list(record.images)
        for picture in c.pictures:
            loaded = images.load(tmp_path / picture.name, batches.MODEL, "pad")
            np.testing.assert_array_equal(picture.pixels, loaded.arrays["images"][0])
            assert picture.slots == 4
    assert step.weight == pytest.approx(1, abs=1e-6)


def test_totals_and_places(tmp_path):
    step, mixture = batches.step(tmp_path, mode="pack")
    assert (step.number, step.of, step.epoch, step.micro_batches) == (0, 3, 0, 1)
    assert step.tokens - step.padding == mixture.index.length[:4].sum() and step.pictures == 3
    for row in step.rows:
        starts = np.cumsum([0, *(len(c.tokens) for c in row.conversations)])
        assert [c.start for c in row.conversations] == starts[:-1].tolist() and row.used == starts[-1]
        assert [c.segment for c in row.conversations] == list(range(1, len(row.conversations) + 1))
    groups = {c.id: c.group for c in step.conversations}
    assert groups == {"c0": 0, "c1": 0, "c2": 1, "c3": 1}


def test_a_short_step_has_empty_rows(tmp_path):
    step, _ = batches.step(tmp_path, number=2)
    assert [len(row.conversations) for row in step.rows] == [1, 0, 0, 0]


def test_arrays_of_another_step_are_refused(tmp_path):
    data = batches.data(tmp_path)
    mixture = batches.build(tmp_path, data)
    plan = batches.plan_lib.BatchPlan(mixture.index, data, 3)
    ((_, batch),) = batches.loader.Loader(plan, mixture, start_step=0, stop_step=1)
    with pytest.raises(ValueError, match=r"row 1 holds the step's conversations \[1\], not \[\]"):
        batch_rows.read(batch, 2, 3, plan, mixture)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    "text", ["The fox. What is this?", "é € 😀 x", "two  spaces\n\n  here", "<s> and </s> in", "\x1b[31m\t"]
)
def test_token_texts_make_up_the_text(tmp_path, legacy, text):
    tokenizer = stand.make_tokenizer(tmp_path / "t", legacy=legacy)
    ids = tokenizer.encode(text)
    texts = batch_rows.texts(tokenizer, ids)
    assert len(texts) == len(ids) and texts[0] == "<s>"
    joined = "".join(texts[1:])
    # Text behind a special token begins with a space of its own in the legacy form.
    assert joined.replace(" ", "") == text.replace(" ", "") and joined.removeprefix(" ") in (
        text,
        joined.removeprefix(" "),
    )
    if "<s>" not in text:
        assert joined.removeprefix(" ") == text


def test_a_letter_cut_in_the_middle_still_shows(tmp_path):
    tokenizer = stand.make_tokenizer(tmp_path / "t")
    ids = tokenizer.encode("\U0001f600", add_bos=False)[:-1]
    assert batch_rows.texts(tokenizer, ids)[-1].endswith("\ufffd")


def test_visible():
    assert batch_rows.visible("a\nb \x1b[31m\u202e\té") == "a\u23ce\nb \\u{1b}[31m\\u{202e}\\u{9}é"


def test_nothing_can_be_changed(tmp_path):
    step, _ = batches.step(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.number = 3
