from __future__ import annotations

import json

import numpy as np
import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import order
from vlguard_jax.data import plan


def make_index(supervised, length=None, words=None) -> index_lib.SampleIndex:
    n = len(supervised)
    return index_lib.SampleIndex(
        length=np.asarray(length if length is not None else [10] * n, np.int64),
        pictures=np.ones(n, np.int64),
        supervised=np.asarray(supervised, np.int64),
        modality_length=np.asarray(words if words is not None else [5] * n, np.int64),
        ids=tuple(f"r{i}" for i in range(n)),
        sources=("s",) * n,
    )


def make_plan(supervised, *, seed=0, length=None, words=None, **settings) -> plan.BatchPlan:
    defaults = dict(order="sequential", batch_size=4, group_size=2, length_multiple=8)
    return plan.BatchPlan(make_index(supervised, length, words), config.DataSettings(**(defaults | settings)), seed)


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
    assert (made.steps_per_epoch, made.total_steps(1.0), made.total_steps(1.3), made.total_steps(3)) == (2, 2, 3, 6)
    assert made[1].samples.tolist() == [4, 5, 0, 1]
    np.testing.assert_allclose(made[1].token_weight, [1 / 22, 1 / 22, 1 / 6, 1 / 6])
    assert make_plan([1, 2, 3])[0].samples.tolist() == [0, 1, 2, 0]
    assert make_plan([7], batch_size=6)[0].samples.tolist() == [0] * 6


def test_short_last_step_has_its_own_divisor():
    made = make_plan([1, 2, 3, 4, 5, 6, 7], end_of_epoch="short")
    assert made[1].samples.tolist() == [4, 5, 6]
    np.testing.assert_allclose(made[1].token_weight, [1 / 22, 1 / 22, 1 / 14])


def test_the_posthoc_recipe_has_55_steps_an_epoch():
    made = make_plan(np.ones(7000, int), batch_size=128, group_size=16)
    assert (made.steps_per_epoch, made.total_steps(3.0)) == (55, 165)


def test_row_length_is_the_longest_rounded_up():
    made = make_plan([1] * 8, length=[3, 8, 1, 1, 9, 1, 1, 1])
    assert (made[0].row_len, made[1].row_len) == (8, 16)


def test_group_without_supervised_token():
    made = make_plan([1, 2, 0, 0])
    with pytest.raises(errors.UserError, match=r"^epoch 0, step 0: no supervised token in the micro-batch of records 'r2', 'r3'; "):
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
    made = make_plan(np.ones(40, int), order=kind, words=words, seed=3)
    again = make_plan(np.ones(40, int), order=kind, words=words, seed=3)
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


def test_zero_words_cannot_be_grouped():
    with pytest.raises(errors.UserError, match="sample 1 has no words"):
        order.modality_grouped([3, 0], 1, 1, lambda n: list(range(n)))


def test_replay(tmp_path):
    path = tmp_path / "order.json"
    path.write_text(json.dumps([3, 1, 0, 2]))
    made = make_plan([1, 2, 3, 4], order="replay", replay=str(path), batch_size=2)
    assert [made[step].samples.tolist() for step in range(3)] == [[3, 1], [0, 2], [3, 1]]
    path.write_text(json.dumps([[3, 1], [0, 2]]))
    made = make_plan([1, 2, 3, 4], order="replay", replay=str(path), batch_size=2)
    assert made.steps_per_epoch == 1 and made[1].samples.tolist() == [0, 2]


@pytest.mark.parametrize("value", [[], [4], [-1], ["a"], {}, [[0], 3], [[0], [1, 2]], [True]])
def test_bad_replay(tmp_path, value):
    path = tmp_path / "order.json"
    path.write_text(json.dumps(value))
    with pytest.raises(errors.UserError, match=r"order\.json: (must be a JSON list of sample positions from 0 to 3|every epoch must have)"):
        make_plan([1, 2, 3, 4], order="replay", replay=str(path))


def test_no_samples_at_all():
    with pytest.raises(errors.UserError, match=r"config\.data\.sources hold no conversation at all"):
        make_plan([])
