"""Plans that took long are kept, and found again whole or not at all."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tests.data import test_plan
from vlguard_jax import config
from vlguard_jax.data import plan
from vlguard_jax.data import plan_cache


def test_a_plan_that_took_long_is_kept(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    index = test_plan.make_index(np.ones(60, int), length=rng.integers(5, 60, 60))
    data = config.DataSettings(mode="pack", order="shuffle", batch_size=8, group_size=4, length_multiple=8)

    def make(seed=0, **changes) -> plan.BatchPlan:
        return plan.BatchPlan(index, dataclasses.replace(data, **changes), seed, epochs=2.0, cache=tmp_path)

    monkeypatch.setattr(plan, "KEEP_AFTER", math.inf)
    quick = make()
    assert not list(tmp_path.glob("plans/*"))
    monkeypatch.setattr(plan, "KEEP_AFTER", -1.0)
    first = make()
    assert len(list(tmp_path.glob("plans/*"))) == 1
    monkeypatch.setattr(plan.BatchPlan, "_made", lambda self: pytest.fail("planned again"))
    # What does not decide a plan may differ.
    for again in (make(), make(read_threads=9, on_bad_record="skip", cache="elsewhere")):
        assert again.shapes == first.shapes == quick.shapes
        for step in range(again.total_steps):
            for name in ("samples", "groups", "token_weight", "row"):
                np.testing.assert_array_equal(getattr(again[step], name), getattr(quick[step], name), err_msg=name)
    for changes in ({"seed": 1}, {"mode": "pad"}, {"deal_window": 2}, {"order": "sequential"}):
        with pytest.raises(pytest.fail.Exception):
            make(**changes)
    (kept,) = tmp_path.glob("plans/*")
    kept.write_bytes(kept.read_bytes()[:99])
    with pytest.raises(pytest.fail.Exception):
        make()


def test_a_kept_plan_without_samples_is_not_there(tmp_path):
    key, empty = "0" * 64, np.zeros((3, 0))
    shapes = np.array([[1, 8, 1, 4]])
    plan_cache.save(
        tmp_path, key, plan_cache.Kept(empty.astype(np.int64), empty.astype(np.int32), np.zeros(3, np.int32), shapes)
    )
    assert plan_cache.load(tmp_path, key, 5) is None
