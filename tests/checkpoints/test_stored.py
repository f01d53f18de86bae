"""What an Orbax folder says of its arrays is looked at before they are read: a few bytes can stand for any number of
zeros."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore

from tests.checkpoints import made
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import store
from vlguard_jax.checkpoints import stored

pytestmark = pytest.mark.usefixtures("without_manifests")


def widen(folder: pathlib.Path, array: str) -> None:
    """Say that the chunks of an array are larger than it is."""
    database = tensorstore.KvStore.open({"driver": "ocdbt", "base": folder.as_uri() + "/"}).result()
    about = json.loads(database.read(f"{array}/.zarray").result().value)
    database.write(
        f"{array}/.zarray", json.dumps(about | {"chunks": [1 << 14 for _ in about["shape"]]}).encode()
    ).result()


def test_chunks_larger_than_their_array_are_not_read(tmp_path: pathlib.Path) -> None:
    save.save_orbax(made.model(), tmp_path / "model")
    widen(tmp_path / "model/arrays", "params.text.head.kernel")
    with pytest.raises(
        errors.UserError,
        match=r"arrays: array params\.text\.head\.kernel: chunks of \[16384, 16384\] are larger than its",
    ):
        load.load(tmp_path / "model")


def test_nor_are_those_of_a_training(tmp_path: pathlib.Path) -> None:
    tree = {"a": jax.numpy.ones((3, 4))}
    steps = store.Store(tmp_path / "steps")
    steps.save(5, tree, {"config": {}})
    steps.wait()
    widen(tmp_path / "steps/5/state", "a")
    with pytest.raises(
        errors.UserError, match=r"5/state: array a: chunks of \[16384, 16384\] are larger than its \[3, 4\]"
    ):
        steps.restore(5, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree))
    steps.close()


def test_arrays_far_larger_than_their_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def saved(name: str, value: np.ndarray) -> tuple[pathlib.Path, dict[str, Any]]:
        with ocp.StandardCheckpointer() as writer:
            writer.save(tmp_path / name, {"a": value})
        return tmp_path / name, stored.read(tmp_path / name)

    zeros, sound = saved("zeros", np.zeros((1000, 1000))), saved("sound", np.random.default_rng(0).random((1000, 1000)))
    stored.check_sizes(*zeros)  # a small model may hold one number alone
    monkeypatch.setattr(limits, "EXPORT_RATIO_FROM", 1 << 20)
    stored.check_sizes(*sound)
    with pytest.raises(
        errors.UserError,
        match=r"zeros: its arrays would be [48],000,000 bytes, packed in .*; weights are at most 50 times",
    ):
        stored.check_sizes(*zeros)


def test_reading_warns_of_nothing(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """A training that goes on reads an item of a step, which has no notes of Orbax's own."""
    steps = store.Store(tmp_path / "steps")
    steps.save(5, {"a": jax.numpy.ones((3, 4))}, {"config": {}})
    steps.close()
    caplog.clear()
    assert [array.shape for array in stored.read(tmp_path / "steps/5/state").values()] == [(3, 4)]
    assert not [record.getMessage() for record in caplog.records if record.levelname != "INFO"]
