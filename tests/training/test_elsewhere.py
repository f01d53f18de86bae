"""A full tuning that is saved on eight devices goes on on others; tests/multiprocess has adapters with dropout, and
processes."""

from __future__ import annotations

import pathlib
import shutil

import jax
import numpy as np
import pytest

from tests.training import stand
from vlguard_jax import config
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.training import loop

pytestmark = pytest.mark.more

UPDATES, STOP = 5, 3


def _train(folder: pathlib.Path, updates: int, data: int, fsdp: int, tensor: int) -> None:
    mesh = config.MeshSettings(data, fsdp, tensor)
    loop.train(stand.settings(run={"export": "llava"}, optimizer={"max_steps": updates}, mesh=mesh), folder)


@pytest.mark.parametrize(("devices", "mesh"), [(4, (2, 2, 1)), (4, (1, 2, 2)), (1, (1, 1, 1))])
def test_the_losses_and_the_model_are_those_of_one_device(
    devices: int, mesh: tuple[int, int, int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.use_devices(monkeypatch, 8)
    assert len(jax.devices()) == 8
    _train(tmp_path / "saved", STOP, 1, 4, 2)
    shutil.copytree(tmp_path / "saved", tmp_path / "on")
    stand.use_devices(monkeypatch, devices)
    _train(tmp_path / "on", UPDATES, *mesh)
    stand.use_devices(monkeypatch, 1)
    _train(tmp_path / "one", UPDATES, 1, 1, 1)
    losses = [[line["loss"] for line in stand.metrics(tmp_path / run)] for run in ("on", "one")]
    assert len(losses[0]) == UPDATES
    np.testing.assert_allclose(*losses, rtol=1e-5)
    ours, theirs = (trees.flatten(load.load(tmp_path / run / "model").params) for run in ("on", "one"))
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        off = np.linalg.norm(value - theirs[path]) / max(np.linalg.norm(theirs[path]), 1e-12)
        assert off < 1e-5, f"{path}: {off}"
