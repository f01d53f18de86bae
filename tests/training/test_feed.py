"""Batches on their way to the devices: order, one ahead, nothing beyond the end, and how long the devices wait."""

from collections.abc import Iterator
import pathlib
import threading
import time
from typing import Any

import jax
import numpy as np
import pytest

from tests.models import tiny
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.data import loader
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.training import feed
from vlguard_jax.training import loop

STEP = types.Batch(*(np.asarray(x)[None] for x in tiny.batch(tiny.CONFIG)))
PAUSE = 0.2  # seconds


@pytest.fixture
def mesh() -> jax.sharding.Mesh:
    return mesh_lib.build(config.MeshSettings(), jax.devices()[:1])


class _Computation:
    """What a step will give, once it is told to."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def block_until_ready(self) -> None:
        self.done.wait()


def test_waiting_before_the_first_step_counts(mesh: jax.sharding.Mesh) -> None:
    def slow() -> Iterator[tuple[int, types.Batch]]:
        time.sleep(PAUSE)
        yield 7, STEP

    with feed.Feed(slow(), mesh) as batches:
        step, batch, waited = batches.take()
        assert step == 7 and waited >= PAUSE
        for name, ours, given in zip(STEP._fields, batch, STEP, strict=True):
            np.testing.assert_array_equal(ours, given, err_msg=name)
        assert batches.take() is None


def test_waiting_while_the_devices_compute_is_free(mesh: jax.sharding.Mesh) -> None:
    running = _Computation()

    def slow() -> Iterator[tuple[int, types.Batch]]:
        time.sleep(PAUSE)
        yield 0, STEP

    with feed.Feed(slow(), mesh) as batches:
        batches.watch(running)
        found = batches.take()
        running.done.set()
    assert found[2] == 0.0


def test_only_the_time_behind_the_computation_counts(mesh: jax.sharding.Mesh) -> None:
    running = _Computation()

    def slow() -> Iterator[tuple[int, types.Batch]]:
        time.sleep(PAUSE)
        running.done.set()
        time.sleep(PAUSE)
        yield 0, STEP

    began = time.perf_counter()
    with feed.Feed(slow(), mesh) as batches:
        batches.watch(running)
        _, _, waited = batches.take()
    assert 0.5 * PAUSE < waited <= time.perf_counter() - began - PAUSE


def test_one_batch_ahead_and_none_beyond_the_end(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)
    events: list[tuple[str, int]] = []
    items: list[int] = []
    to_device, follow, settle, read = feed.to_device, loop._Log.follow, loop._Log.settle, loader.StepSource.__getitem__

    def placed(*args: Any) -> types.Batch:
        events.append(("placed", sum(name == "placed" for name, _ in events) + 1))
        return to_device(*args)

    def started(log: loop._Log, update: int, *args: Any, **named: Any) -> None:
        events.append(("started", update))
        follow(log, update, *args, **named)

    def settled(log: loop._Log) -> None:
        if log._pending is not None:
            events.append(("settled", log._pending[0]))
        settle(log)

    def item(source: loader.StepSource, position: int) -> tuple[int, types.Batch]:
        items.append(position)
        return read(source, position)

    monkeypatch.setattr(feed, "to_device", placed)
    monkeypatch.setattr(loop._Log, "follow", started)
    monkeypatch.setattr(loop._Log, "settle", settled)
    monkeypatch.setattr(loader.StepSource, "__getitem__", item)
    result = loop.train(stand.settings(optimizer={"max_steps": 3}), tmp_path)
    assert result.step == 3 and sorted(items) == [0, 1, 2], "the run has more steps, but they are not read"
    # Update 2's batch is placed while update 1 is under way, update 3's only when 1 is finished.
    expected = "placed 1, started 1, placed 2, settled 1, started 2, placed 3, settled 2, started 3, settled 3"
    assert ", ".join(f"{name} {update}" for name, update in events) == expected


def test_a_slow_disk_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand.use_devices(monkeypatch, 1)
    read = loader.StepSource.__getitem__

    def slow(source: loader.StepSource, position: int) -> tuple[int, types.Batch]:
        time.sleep(1.0)
        return read(source, position)

    quick = loop.train(stand.settings(optimizer={"max_steps": 9}), tmp_path / "quick")
    assert "waited for their input" not in capsys.readouterr().out
    monkeypatch.setattr(loader.StepSource, "__getitem__", slow)
    result = loop.train(stand.settings(optimizer={"max_steps": 9}, data={"read_threads": 1}), tmp_path / "slow")
    said = capsys.readouterr().out
    assert "the devices waited for their input" in said and "raise config.data.read_threads (now 1)" in said
    assert quick.metrics["input_wait"] < 0.5 < result.metrics["input_wait"] <= 1.0
    assert stand.metrics(tmp_path / "slow") == stand.metrics(tmp_path / "quick")
