"""Steps that are damaged or find no room: set aside or tried again, and what was whole stays."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import resource
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checkpoints import test_store
from tests.soak import watched_training
from vlguard_jax import machine
from vlguard_jax.checkpoints import steps as steps_lib
from vlguard_jax.checkpoints import store


def two(folder: pathlib.Path) -> store.Store:
    """Steps 3 and 5, whose values differ."""
    steps = store.Store(folder, keep=2)
    for step in (3, 5):
        steps.save(
            step, test_store.tree(jax.NamedSharding(test_store.mesh(1, 1), jax.P()), float(step)), test_store.META
        )
    steps.close()
    return steps


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("meta/metadata", "cut"),
        ("meta/metadata", "missing"),
        ("_CHECKPOINT_METADATA", "empty"),
        ("state/_METADATA", "cut"),
        ("state/manifest.ocdbt", "missing"),
    ],
)
def test_a_visibly_broken_step_is_set_aside_beside_a_whole_one(tmp_path: pathlib.Path, name: str, how: str) -> None:
    two(tmp_path / "s")
    path = tmp_path / "s/5" / name
    data = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(data[: len(data) // 2] if how == "cut" else b"")
    left = sorted(one.name for one in (tmp_path / "s/5").rglob("*"))
    for again in range(2):
        steps = store.Store(tmp_path / "s", keep=2)
        assert steps.steps() == [3] and steps.aside() == ["5.broken-1"]
        (said,) = steps.notices or [""]
        assert again or (said.endswith("; set aside as s/5.broken-1") and "s/5" in said)
        steps.close()
    assert sorted(one.name for one in (tmp_path / "s/5.broken-1").rglob("*")) == left


def test_the_only_step_is_not_set_aside(tmp_path: pathlib.Path) -> None:
    test_store.saved(tmp_path / "s")
    (tmp_path / "s/5/meta/metadata").write_text("{")
    with pytest.raises(
        steps_lib.Damaged, match=r"no other step here is whole: put a copy back, or remove .*/s to start"
    ):
        store.Store(tmp_path / "s")
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["5"]


def test_setting_aside_takes_free_names(tmp_path: pathlib.Path) -> None:
    two(tmp_path / "s")
    (tmp_path / "s/5.broken-1").mkdir()
    steps = store.Store(tmp_path / "s", keep=2)
    assert steps.set_aside(5) == "5.broken-2" and steps.steps() == [3] and 5 not in steps
    steps.save(5, test_store.tree(jax.NamedSharding(test_store.mesh(1, 1), jax.P()), 7.0), test_store.META)
    steps.wait()
    assert steps.steps() == [5, 3]
    steps.close()


def test_the_newest_and_the_named_step_stay(tmp_path: pathlib.Path) -> None:
    """Whatever is set aside counts for none of them."""
    best = [2]
    steps = store.Store(tmp_path / "s", keep=2, also=lambda: best[0])
    for step in range(1, 8):
        steps.save(step, {"x": jnp.float32(step)}, test_store.META)
        best[0] = 2 if step < 6 else 5
        if step == 4:
            steps.wait()
            assert steps.set_aside(4) == "4.broken-1" and steps.steps() == [3, 2]
    assert steps.steps() == [7, 6, 5] and steps.aside() == ["4.broken-1"]
    steps.close()


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_costs_no_older_step(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    """The system refuses large files, to Orbax's own threads, too; then there is room again."""
    rng = np.random.default_rng(0)
    value = {"x": jnp.asarray(rng.standard_normal((512, 1024)), jnp.float32)}  # 2 MiB that do not compress
    steps = store.Store(tmp_path / "s", keep=1)
    assert steps.save(1, value, test_store.META) == []
    steps.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if background:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    else:
        monkeypatch.setattr(steps._manager, "save", mock.Mock(side_effect=OSError(errno.ENOSPC, "full", "s/2")))
    try:
        told = steps.save(2, value, test_store.META)
        if background:
            assert told == []
            told = steps.save(3, value, test_store.META)
        with pytest.raises(Exception) as failed:
            steps.wait()
        assert machine.full(failed.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (said,) = told
    assert said.startswith("update 2 is not saved, ") and said.endswith(
        "s; update 1 is the newest that is saved, and the next save tries again"
    )
    assert steps.save(4, value, test_store.META) == []
    steps.wait()
    assert steps.steps() == [4] and [path.name for path in (tmp_path / "s").iterdir()] == ["4"]
    steps.restore(4, test_store.abstract(value, jax.NamedSharding(test_store.mesh(1, 1), jax.P())))
    steps.close()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can be renamed, folders cannot, as in a bucket that gcsfuse has mounted."""
    monkeypatch.setattr(os, "rename", os.rename)  # put back at the end
    monkeypatch.setattr(os, "replace", os.replace)
    watched_training.without_renaming()


def test_without_renaming_a_step_is_whole_or_none(tmp_path: pathlib.Path, bucket: None) -> None:
    two(tmp_path / "s")
    state = test_store.tree(jax.NamedSharding(test_store.mesh(1, 1), jax.P()), 5.0)
    # a kill before the last file of step 7, and one before its first
    shutil.copytree(tmp_path / "s/5", tmp_path / "s/7")
    (tmp_path / "s/7/commit_success.txt").unlink()
    note = json.loads((tmp_path / "s/7/_CHECKPOINT_METADATA").read_text())
    (tmp_path / "s/7/_CHECKPOINT_METADATA").write_text(json.dumps(note | {"commit_timestamp_nsecs": None}))
    (tmp_path / "s/9").mkdir()
    steps = store.Store(tmp_path / "s", keep=2)
    assert steps.steps() == [5, 3] and steps.aside() == []
    found = steps.restore(5, test_store.abstract(state, jax.NamedSharding(test_store.mesh(1, 1), jax.P())))
    test_store.assert_same(found["params"], state["params"])
    assert steps.set_aside(5) == "5.broken-1" and steps.steps() == [3]
    steps.close()
    assert sorted(entry.name for entry in (tmp_path / "s").iterdir()) == ["3", "5.broken-1"]


def test_steps_that_were_renamed_into_place_are_read_without_renaming(
    tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    two(tmp_path / "s")
    request.getfixturevalue("bucket")
    steps = store.Store(tmp_path / "s", keep=2)
    assert steps.steps() == [5, 3]
    steps.save(7, test_store.tree(jax.NamedSharding(test_store.mesh(1, 1), jax.P()), 7.0), test_store.META)
    assert steps.steps() == [7, 5]
    steps.close()
