from __future__ import annotations

import itertools
import json
import pickle

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import plan


def make_index(supervised, length=None, words=None, units=None, slots=None) -> index_lib.SampleIndex:
    n = len(supervised)
    return index_lib.SampleIndex(
        length=np.asarray(length if length is not None else [10] * n, np.int64),
        pictures=np.ones(n, np.int64),
        units=np.asarray(units if units is not None else [1] * n, np.int64),
        slots=np.asarray(slots if slots is not None else [4] * n, np.int64),
        supervised=np.asarray(supervised, np.int64),
        modality_length=np.asarray(words if words is not None else [5] * n, np.int64),
        ids=tuple(f"r{i}" for i in range(n)),
        source=np.zeros(n, np.int32),
        source_names=("s",),
    )


def make_plan(
    supervised, *, seed=0, length=None, words=None, units=None, slots=None, layout=None, epochs=1.0, **settings
) -> plan.BatchPlan:
    defaults = dict(order="sequential", batch_size=4, group_size=2, length_multiple=8)
    index = make_index(supervised, length, words, units, slots)
    return plan.BatchPlan(index, config.DataSettings(**(defaults | settings)), seed, layout, epochs)


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        ("micro_batch", [1 / (2 * 4), 1 / (2 * 4), 1 / (2 * 16), 1 / (2 * 16)]),
        ("tokens", [1 / 20] * 4),
        ("sample", [1 / (4 * 1), 1 / (4 * 3), 1 / (4 * 6), 1 / (4 * 10)]),
    ],
)
def test_weights(normalization, expected):
    step = make_plan([1, 3, 6, 10], normalization=normalization)[0]
    np.testing.assert_allclose(step.token_weight, expected, rtol=1e-15)
    assert step.groups.tolist() == [0, 0, 1, 1]


def test_refilled_last_step():
    made = make_plan([1, 2, 3, 4, 5, 6])
    assert (made.steps_per_epoch, made.total_steps) == (2, 2)
    assert [make_plan([1, 2, 3, 4, 5, 6], epochs=epochs).total_steps for epochs in (0.4, 1.3, 3.0)] == [1, 3, 6]
    assert made[1].samples.tolist() == [4, 5, 0, 1]
    np.testing.assert_allclose(made[1].token_weight, [1 / 22, 1 / 22, 1 / 6, 1 / 6])
    assert make_plan([1, 2, 3])[0].samples.tolist() == [0, 1, 2, 0]
    assert make_plan([7], batch_size=6)[0].samples.tolist() == [0] * 6


def test_short_last_step_has_its_own_divisor():
    made = make_plan([1, 2, 3, 4, 5, 6, 7], end_of_epoch="short")
    assert made[1].samples.tolist() == [4, 5, 6]
    np.testing.assert_allclose(made[1].token_weight, [1 / 22, 1 / 22, 1 / 14])


def test_the_posthoc_recipe_has_55_steps_an_epoch():
    made = make_plan(np.ones(7000, int), batch_size=128, group_size=16, epochs=3.0)
    assert (made.steps_per_epoch, made.total_steps) == (55, 165)


def test_padded_rows():
    made = make_plan([1] * 8, length=[3, 8, 1, 1, 9, 1, 1, 1])
    assert made.shapes == (plan.Shape(4, 8, 4, 16), plan.Shape(4, 16, 4, 16))
    assert (made[0].shape, made[1].shape) == made.shapes and made[1].row.tolist() == [0, 1, 2, 3]
    assert made.computed_over_real == (4 * 8 + 4 * 16) / 25
    assert make_plan([1] * 8, length=[3, 8, 1, 1, 9, 1, 1, 1], length_multiple=512).shapes == (
        plan.Shape(4, 512, 4, 16),
    )
    assert make_plan([1] * 3, layout=plan.Layout(0, 8)).shapes == (plan.Shape(8, 16, 1, 4),)  # rows for eight devices
    assert make_plan([1] * 3, layout=plan.Layout(2, 1)).shapes == (plan.Shape(4, 16, 2, 8),)


@pytest.mark.parametrize("shapes,expected", [(1, [5]), (2, [2, 5]), (3, [1, 2, 5]), (0, [1, 2, 4, 5])])
def test_few_lengths_for_all_padded_steps(shapes, expected):
    """Steps as long as 1, 1, 2, 2, 2, 4, 5, 5 times the multiple."""
    longest = np.repeat([8 * n for n in (1, 1, 2, 2, 2, 4, 5, 5)], 4)
    made = make_plan(np.ones(32, int), length=longest, shapes=shapes)
    assert [shape.row_len // 8 for shape in made.shapes] == expected
    assert all(made[step].shape.row_len >= longest[4 * step] for step in range(8))


def test_group_without_supervised_token():
    made = make_plan([1, 2, 0, 0])
    with pytest.raises(
        errors.UserError, match=r"^epoch 0, step 0: no supervised token in the micro-batch of records 'r2', 'r3'; "
    ):
        made.check(1)
    zero = make_plan([1, 2, 0, 0], on_empty_group="zero")
    np.testing.assert_allclose(zero[0].token_weight, [1 / 6, 1 / 6, 0, 0])
    # One empty sample inside a group does no harm.
    np.testing.assert_allclose(make_plan([1, 2, 0, 5])[0].token_weight, [1 / 6, 1 / 6, 1 / 10, 1 / 10])
    with pytest.raises(errors.UserError, match="'r2'; remove them"):
        make_plan([1, 2, 0, 5], normalization="sample").check(1)


@pytest.mark.parametrize("kind", ["shuffle", "modality_length"])
def test_random_orders_are_pure_functions(kind):
    rng = np.random.default_rng(1)
    words = (rng.integers(1, 50, 40) * rng.choice([1, -1], 40)).tolist()
    made = make_plan(np.ones(40, int), order=kind, words=words, seed=3, epochs=3.0)
    again = make_plan(np.ones(40, int), order=kind, words=words, seed=3, epochs=3.0)
    other = make_plan(np.ones(40, int), order=kind, words=words, seed=4)
    steps = range(3 * made.steps_per_epoch)
    backwards = {step: again[step].samples.tolist() for step in reversed(steps)}
    assert [made[step].samples.tolist() for step in steps] == [backwards[step] for step in steps]
    epochs = [np.concatenate([made.at(epoch, step).samples for step in range(10)]) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert made[0].samples.tolist() != other[0].samples.tolist()


def test_modality_grouping_keeps_modalities_apart():
    rng = np.random.default_rng(0)
    words = (rng.integers(1, 50, 64) * np.repeat([1, -1], 32)).tolist()
    made = make_plan(np.ones(64, int), order="modality_length", words=words, batch_size=8, group_size=2)
    kinds = [{words[i] > 0 for i in made[step].samples} for step in range(8)]
    # Only the last megabatch of each kind is merged, at the end.
    assert all(len(kind) == 1 for kind in kinds[:6])


def test_replay(tmp_path):
    path = tmp_path / "order.json"
    path.write_text(json.dumps([3, 1, 0, 2]))
    made = make_plan([1, 2, 3, 4], order="replay", replay=str(path), batch_size=2, epochs=2.0)
    assert [made[step].samples.tolist() for step in range(3)] == [[3, 1], [0, 2], [3, 1]]
    path.write_text(json.dumps([[3, 1], [0, 2]]))
    made = make_plan([1, 2, 3, 4], order="replay", replay=str(path), batch_size=2, epochs=2.0)
    assert made.steps_per_epoch == 1 and made[1].samples.tolist() == [0, 2]


BAD_ORDERS = {
    "nothing": ([], "not an empty list"),
    "no list": ({"0": 1}, "not an object"),
    "beyond": ([0, 4], "entry 1 is 4; positions are whole numbers from 0 to 3, as the sources hold 4 conversations"),
    "negative": ([-1], "entry 0 is -1"),
    "huge": ([10**30], "entry 0 is 1000000"),
    "text": (["a"], "entry 0 is 'a'"),
    "float": ([1.0], r"entry 0 is 1\.0"),
    "bool": ([True], "entry 0 is True"),
    "null": ([0, None], "entry 1 is None"),
    "mixed": ([[0], 3], "an epoch's order must be a JSON list of sample positions, not a number"),
    "empty epoch": ([[0], []], "not an empty list"),
    "unequal": ([[0], [1, 2]], "every epoch must have the same number"),
    "too few": ([[0], [1]], r"2 orders for config\.optimizer\.epochs=3"),
}


@pytest.mark.parametrize("case", BAD_ORDERS)
def test_bad_replay(tmp_path, case):
    value, message = BAD_ORDERS[case]
    path = tmp_path / "order.json"
    path.write_text(json.dumps(value))
    with pytest.raises(errors.UserError, match=rf"order\.json: .*{message}"):
        make_plan([1, 2, 3, 4], order="replay", replay=str(path), epochs=3.0)


POSITIONS = st.integers(-3, 6) | st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=2)
ORDERS = st.lists(st.integers(0, 3), min_size=1, max_size=5)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    ORDERS
    | st.lists(ORDERS, max_size=3)
    | st.lists(POSITIONS | st.lists(POSITIONS, max_size=3), max_size=3)
    | POSITIONS
)
def test_any_order_is_followed_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any-order.json"
    path.write_text(json.dumps(value))
    try:
        made = make_plan([1, 2, 3, 4], order="replay", replay=str(path), batch_size=1, group_size=1)
    except errors.UserError:
        return
    first = value[0] if isinstance(value[0], list) else value
    assert [int(made[step].samples[0]) for step in range(made.total_steps)] == first


def test_replay_says_what_it_leaves_out(tmp_path):
    path = tmp_path / "order.json"
    for orders, said in (([3, 1, 0, 2], False), ([0, 0, 1], True), ([[0, 1, 2, 3], [3, 3, 0, 1]], True)):
        path.write_text(json.dumps(orders))
        notes = make_plan([1, 2, 3, 4], order="replay", replay=str(path), epochs=2.0).notes()
        assert any("config.data.replay" in note for note in notes) == said
    assert (
        notes[-1] == "config.data.replay: of 4 conversations 1 are left out of an epoch, 1 come more than once in one"
    )


def test_no_samples_at_all():
    with pytest.raises(errors.UserError, match=r"config\.data\.sources hold no conversation at all"):
        make_plan([])


def random_plan(**settings) -> plan.BatchPlan:
    """Steps of 8 in groups of 2 from 90 conversations, 10 of them without a picture."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 50, 90) * np.where(np.arange(90) % 9, 1, -1)
    length = rng.integers(5, 60, 90) + 20 * (words > 0)
    defaults = dict(order="shuffle", batch_size=8, seed=2, epochs=2.5, max_row_len=200)
    supervised = rng.integers(1, 9, 90)
    takes = {"units": (words > 0) * rng.integers(1, 6, 90), "slots": (words > 0) * rng.integers(1, 20, 90)}
    return make_plan(supervised, length=length, words=words, **takes, **(defaults | settings))


LAYOUTS = [plan.Layout(), plan.Layout(0, 4), plan.Layout(4, 2), plan.Layout(8, 8)]


@pytest.mark.parametrize("order", ["shuffle", "modality_length"])
@pytest.mark.parametrize("window", [0, 3])
def test_rows_change_neither_samples_nor_weights(order, window):
    made = random_plan(order=order, deal_window=window)
    assert made.total_steps == 30
    for mode in ("pad", "pack"):
        for layout in LAYOUTS:
            other = random_plan(order=order, deal_window=window, mode=mode, layout=layout)
            for step in reversed(range(30)):
                for name in ("samples", "groups", "token_weight"):
                    np.testing.assert_array_equal(getattr(made[step], name), getattr(other[step], name))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "settings", [{}, {"shapes": 3}, {"order": "modality_length"}, {"end_of_epoch": "short"}, {"mode": "pad"}]
)
def test_steps_fit_their_shapes(layout, settings):
    made = random_plan(layout=layout, **({"mode": "pack", "deal_window": 4} | settings))
    assert {made[step].shape for step in range(30)} == set(made.shapes)
    assert len(made.shapes) <= (
        settings.get("shapes") or {"pad": 4}.get(settings.get("mode"), 3 if "order" in settings else 2)
    )
    computed = real = 0
    fullest: dict[plan.Shape, tuple[int, int]] = {}
    for step in range(30):
        one, shape = made[step], made[step].shape
        length, units, slots = (
            counts[one.samples] for counts in (made.index.length, made.index.units, made.index.slots)
        )
        assert shape.rows % (layout.rows or layout.shards) == 0 and shape.row_len % 8 == 0
        assert len(one.row) == len(one.samples) and one.row.min() >= 0 and one.row.max() < shape.rows
        assert np.bincount(one.row, weights=length).max() <= shape.row_len
        shard = one.row // ((layout.rows or shape.rows) // layout.shards)
        most = tuple(int(np.bincount(shard, weights=of).max()) for of in (units, slots))
        fullest[shape] = tuple(max(pair) for pair in zip(most, fullest.get(shape, (0, 0)), strict=True))
        computed, real = computed + shape.rows * shape.row_len, real + length.sum()
    assert made.computed_over_real == computed / real
    assert fullest == {
        shape: (shape.units, shape.slots) for shape in made.shapes
    }  # all fit, with no more room than that


@pytest.mark.parametrize("takes", [{"units": [5, 1] * 48}, {"slots": [5, 1] * 48}])
def test_one_shape_more_where_pictures_differ(takes):
    """Every second step has 96 tokens, the others 32."""
    length = np.tile(np.repeat([24, 8], 4), 12)
    same = make_plan([1] * 96, length=length, mode="pack", max_row_len=40)
    other = make_plan([1] * 96, length=length, mode="pack", max_row_len=40, **takes)
    assert [shape.rows * shape.row_len for shape in same.shapes] == [96]
    assert [shape.rows * shape.row_len for shape in other.shapes] == [32, 96]
    assert other.computed_over_real == 1.0 and len(make_plan([1] * 96, **takes, mode="pack", shapes=1).shapes) == 1


@pytest.mark.parametrize("order", ["shuffle", "sequential", "modality_length"])
def test_dealing_keeps_every_sample_once_an_epoch(order):
    plain = random_plan(order=order, end_of_epoch="short", epochs=2.0)
    made = random_plan(order=order, deal_window=4, end_of_epoch="short", epochs=2.0)
    changed = 0
    for epoch in range(2):
        before = [plain.at(epoch, step).samples.tolist() for step in range(12)]
        after = [made.at(epoch, step).samples.tolist() for step in range(12)]
        assert sorted(itertools.chain(*after)) == list(range(90)) and after[11] == before[11]
        for at in (0, 4, 8):
            window = slice(at, min(at + 4, 11))
            assert sorted(itertools.chain(*after[window])) == sorted(itertools.chain(*before[window]))
        changed += before != after
    assert changed == 2
    for one, other in zip(random_plan(order=order, deal_window=1), random_plan(order=order), strict=True):
        assert sorted(one.samples) == sorted(other.samples)


def test_dealing_evens_out_tokens_and_keeps_groups_of_one_modality():
    rng = np.random.default_rng(0)
    words = rng.integers(1, 400, 1024) * np.repeat([1, -1], 512)
    length = 10 + np.abs(words)
    spread = {}
    for window in (0, 8):
        made = make_plan(
            np.ones(1024, int),
            length=length,
            words=words,
            order="modality_length",
            batch_size=32,
            group_size=8,
            deal_window=window,
        )
        steps = [made[step].samples for step in range(30)]  # the last two hold what is left over of either kind
        assert all(len({words[i] > 0 for i in samples}) == 1 for samples in steps)
        groups = np.array([length[samples].reshape(4, 8).sum(1) for samples in steps])
        assert np.ptp(groups, axis=1).max() < 0.1 * groups.mean()
        place = [(step // 8, words[samples[0]] > 0) for step, samples in enumerate(steps)]
        spread[window] = [np.ptp([groups[i].sum() for i in range(30) if place[i] == here]) for here in set(place)]
    assert max(spread[8]) < 0.05 * max(spread[0])


def test_a_refilled_last_step_is_dealt_too():
    made = make_plan(np.ones(6, int), length=[1, 2, 3, 40, 50, 60], deal_window=2)
    assert sorted(np.concatenate([made[0].samples, made[1].samples]).tolist()) == [0, 0, 1, 1, 2, 3, 4, 5]
    assert abs(int(made.index.length[made[0].samples].sum()) - int(made.index.length[made[1].samples].sum())) < 60


def test_two_shapes_keep_texts_from_costing_what_pictures_cost():
    words = np.repeat([5, -5], 32)
    length = np.repeat([20, 60], 32)
    one = make_plan(np.ones(64, int), length=length, words=words, order="modality_length", mode="pack", shapes=1)
    two = make_plan(np.ones(64, int), length=length, words=words, order="modality_length", mode="pack")
    assert len(one.shapes) == 1 and len(two.shapes) == 2 and two.computed_over_real < one.computed_over_real


def test_notes():
    (line,) = random_plan(mode="pack", shapes=1).notes()
    assert line.startswith("packed rows: ") and "(30 steps); 1." in line
    _, changed = random_plan(mode="pad", deal_window=7).notes()
    assert changed.startswith(
        "ORDER CHANGED (config.data.deal_window=7): in every 7 consecutive steps the conversations are dealt"
    )
    assert "conversations of one modality" in random_plan(order="modality_length", deal_window=7).notes()[1]


def test_steps_outside_the_run():
    made = random_plan()
    assert len(list(made)) == 30
    for step in (-1, 30):
        with pytest.raises(IndexError, match="not in a run of 30 steps"):
            made[step]


def test_row_shards_must_divide_the_micro_batch():
    with pytest.raises(errors.UserError, match=r"^config\.run\.rows=3 must be a multiple of the 2 row shards"):
        random_plan(layout=plan.Layout(3, 2))


@pytest.mark.parametrize("normalization", ["micro_batch", "tokens", "sample"])
def test_check_finds_what_the_steps_find(normalization):
    supervised = np.ones(30, int)
    supervised[[3, 12, 13, *range(20, 24)]] = 0
    made = make_plan(supervised, normalization=normalization, end_of_epoch="short", epochs=2.0)

    def found(look) -> str:
        try:
            look()
        except errors.UserError as e:
            return str(e)
        return ""

    for steps in range(16):
        assert found(lambda: made.check(steps)) == found(lambda: [made[step] for step in range(steps)])  # noqa: B023
    assert found(lambda: made.check(16))


def test_a_plan_can_be_sent_to_a_worker():
    made = random_plan(mode="pack")
    sent = pickle.loads(pickle.dumps(made))
    assert sent[7].row.tolist() == made[7].row.tolist() and sent.shapes == made.shapes
