from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from tests.data import stand
from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.families import family

IGNORE = types.IGNORE_LABEL
PAD = 0
ROOM = family.Room(units=2, slots=4)


def tokens(ids, supervised_from):
    ids = np.asarray(ids, np.int32)
    labels = np.where(np.arange(len(ids)) >= supervised_from, ids, IGNORE).astype(np.int32)
    return types.Tokens(ids=ids, labels=labels)


def picture(value):
    return np.full((2, 2, 3), value, np.uint8)


def test_a_picture_takes_its_patches():
    sample = batches.expand(tokens([1, types.IMAGE_TOKEN, 5, types.IMAGE_TOKEN, 6, 7], 4), [3, 2], 100, PAD)
    assert sample.tokens.tolist() == [1, 0, 0, 0, 5, 0, 0, 6, 7]
    assert sample.labels.tolist() == [IGNORE] * 7 + [6, 7]
    assert sample.picture.tolist() == [-1, 0, 0, 0, -1, 1, 1, -1, -1]
    assert sample.place.tolist() == [0, 0, 1, 2, 0, 0, 1, 0, 0]
    assert (sample.num_pictures, sample.num_supervised) == (2, 2)


def test_both_cuts():
    given = tokens([1, 5, types.IMAGE_TOKEN, 6, 7, 8], 3)
    # The first cut counts a picture as one token, the second one falls inside it.
    assert batches.expand(given, [4], 5, PAD).tokens.tolist() == [1, 5, 0, 0, 0]
    assert batches.expand(given, [4], 5, PAD).num_supervised == 0
    assert batches.expand(given, [4], 2, PAD).num_pictures == 0
    assert len(batches.expand(given, [4], None, PAD).tokens) == 9


def test_literal_pad_is_deleted_in_training_only():
    given = tokens([1, PAD, 5], 1)
    assert batches.expand(given, [], 10, PAD).tokens.tolist() == [1, 5]
    assert batches.expand(given, [], 10, None).tokens.tolist() == [1, PAD, 5]


def test_the_first_token_is_never_predicted():
    assert batches.expand(tokens([1, 5, 6], 0), [], 10, PAD).num_supervised == 2


def test_more_tags_than_pictures():
    with pytest.raises(ValueError, match="2 pictures in the text, 1 given"):
        batches.expand(tokens([types.IMAGE_TOKEN] * 2, 0), [4], 10, PAD)


@pytest.fixture
def samples():
    text = batches.expand(tokens([1, 5, 6], 1), [], 10, PAD)
    shown = batches.expand(tokens([1, types.IMAGE_TOKEN, 7, 8], 2), [2], 10, PAD)
    loaded = types.Picture({"images": picture(9)[None]}, types.Extent(slots=2, units=1))
    return text, dataclasses.replace(shown, pictures=(loaded,))


def collate(rows, weights, sources=None, room=ROOM):
    return batches.collate(rows, weights, sources, row_len=8, room=room, model=stand.sees(2))


def test_one_conversation_a_row(samples):
    text, shown = samples
    batch = collate([[text], [shown], []], [[0.5], [0.25], []])
    assert batch.tokens.tolist() == [[1, 5, 6, 0, 0, 0, 0, 0], [1, 0, 0, 7, 8, 0, 0, 0], [0] * 8]
    assert batch.targets.tolist() == [[5, 6] + [IGNORE] * 6, [IGNORE, IGNORE, 7, 8] + [IGNORE] * 4, [IGNORE] * 8]
    assert batch.loss_weight.tolist() == [[0.5, 0.5] + [0] * 6, [0, 0, 0.25, 0.25] + [0] * 4, [0] * 8]
    assert batch.segment_ids.tolist() == [[1] * 3 + [0] * 5, [1] * 5 + [0] * 3, [0] * 8]
    assert batch.positions.tolist() == [[0, 1, 2] + [0] * 5, [0, 1, 2, 3, 4, 0, 0, 0], [0] * 8]
    assert batch.slot.tolist() == [[-1] * 8, [-1, 0, 1] + [-1] * 5, [-1] * 8]
    assert batch.source.tolist() == [[0] * 3 + [-1] * 5, [0] * 5 + [-1] * 3, [-1] * 8]
    np.testing.assert_array_equal(batch.pictures["images"], [picture(9), picture(0)])


def test_several_conversations_a_row_keep_apart(samples):
    text, shown = samples
    batch = collate([[shown, text], [shown]], [[0.5, 0.25], [1.0]], [[2, 0], [1]])
    assert batch.segment_ids[0].tolist() == [1] * 5 + [2] * 3
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert batch.targets[0].tolist() == [IGNORE, IGNORE, 7, 8, IGNORE, 5, 6, IGNORE]
    assert batch.loss_weight[0].tolist() == [0, 0, 0.5, 0.5, 0, 0.25, 0.25, 0]
    assert batch.slot[1].tolist() == [-1, 2, 3] + [-1] * 5
    assert batch.source.tolist() == [[2] * 5 + [0] * 3, [1] * 5 + [-1] * 3]
    np.testing.assert_array_equal(batch.pictures["images"], [picture(9), picture(9)])


def test_what_does_not_fit(samples):
    text, shown = samples
    with pytest.raises(ValueError, match="row 0 holds more than 8 tokens"):
        collate([[shown, shown]], [[1.0, 1.0]])
    for room in (family.Room(units=1, slots=4), family.Room(units=2, slots=3)):
        needed = "Room(units=2, slots=4)"
        with pytest.raises(ValueError, match=re.escape(f"pictures need {needed}, there is {room}")):
            collate([[shown], [shown]], [[1.0], [1.0]], room=room)
    with pytest.raises(ValueError, match="row 0: 0 pictures loaded, 1 are used"):
        collate([[dataclasses.replace(shown, pictures=())]], [[1.0]])
    assert collate([[text]], [[1.0]], room=family.Room(0, 0)).pictures["images"].shape == (0, 2, 2, 3)


def test_shards_one_after_the_other(samples):
    """Every shard has the whole room; slots count over all of them."""
    text, shown = samples
    first, second = collate([[text], [shown]], [[1.0], [1.0]]), collate([[shown], [text]], [[1.0], [1.0]])
    batch = batches.joined([(0, first), (1, second)], ROOM)
    assert batch.slot.tolist() == [[-1] * 8, [-1, 0, 1] + [-1] * 5, [-1, 4, 5] + [-1] * 5, [-1] * 8]
    assert batch.tokens.tolist() == [*first.tokens.tolist(), *second.tokens.tolist()]
    np.testing.assert_array_equal(batch.pictures["images"], [picture(9), picture(0)] * 2)
    alone = batches.joined([(1, second)], ROOM)
    assert alone.slot.tolist() == batch.slot[2:].tolist()  # another host's shard keeps its numbers


def test_a_language_model_gets_no_pictures(samples):
    text, _ = samples
    batch = batches.collate([[text]], [[1.0]], row_len=8, room=family.Room(0, 0), model=stand.blind())
    assert batch.pictures == {} and batch.tokens[0, :3].tolist() == [1, 5, 6]
