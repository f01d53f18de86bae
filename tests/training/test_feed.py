"""Batches on their way to the devices: order, one ahead, nothing beyond the end, and how long the devices wait."""

from collections.abc import Iterator
import dataclasses
import pathlib
import threading
from typing import Any

import jax
import numpy as np
import pytest

from tests.families import tiny
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.data import loader
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.training import feed
from vlguard_jax.training import log as log_lib
from vlguard_jax.training import loop

STEP = jax.tree.map(lambda x: np.asarray(x)[None], tiny.batch(tiny.CONFIG))


@pytest.fixture
def mesh() -> jax.sharding.Mesh:
    return mesh_lib.build(config.MeshSettings(), jax.devices()[:1])


@dataclasses.dataclass
class Clock:
    """Stands in for the module `time`: no second passes by itself."""

    now: float = 0.0

    def perf_counter(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the feed measures."""
    made = Clock()
    monkeypatch.setattr(feed, "time", made)
    return made


class _Computation:
    """What a step will give, once it is told to."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def block_until_ready(self) -> None:
        self.done.wait()


def test_waiting_before_the_first_step_counts(mesh: jax.sharding.Mesh, clock: Clock) -> None:
    def slow() -> Iterator[tuple[int, types.Batch]]:
        clock.now += 3
        yield 7, STEP

    with feed.Feed(slow(), mesh) as batches:
        step, batch, waited = batches.take()
        assert step == 7 and waited == 3
        jax.tree.map(np.testing.assert_array_equal, batch, STEP)
        assert batches.take() is None


def test_waiting_while_the_devices_compute_is_free(mesh: jax.sharding.Mesh, clock: Clock) -> None:
    running = _Computation()

    def slow() -> Iterator[tuple[int, types.Batch]]:
        clock.now += 3
        yield 0, STEP

    with feed.Feed(slow(), mesh) as batches:
        batches.watch(running)
        found = batches.take()
        running.done.set()
    assert found[2] == 0.0


def test_only_the_time_behind_the_computation_counts(mesh: jax.sharding.Mesh, clock: Clock) -> None:
    running, watched = _Computation(), []

    def slow() -> Iterator[tuple[int, types.Batch]]:
        clock.now += 3
        running.done.set()
        assert watched[0].result() == 3
        clock.now += 4
        yield 0, STEP

    with feed.Feed(slow(), mesh) as batches:
        watched.append(batches.watch(running))
        _, _, waited = batches.take()
    assert waited == 4


def test_one_batch_ahead_and_none_beyond_the_end(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)
    events: list[tuple[str, int]] = []
    items: list[int] = []
    to_device, follow, settle, read = (
        feed.to_device,
        log_lib.Log.follow,
        log_lib.Log.settle,
        loader.StepSource.__getitem__,
    )

    def placed(*args: Any) -> types.Batch:
        events.append(("placed", sum(name == "placed" for name, _ in events) + 1))
        return to_device(*args)

    def started(log: log_lib.Log, update: int, *args: Any, **named: Any) -> None:
        events.append(("started", update))
        follow(log, update, *args, **named)

    def settled(log: log_lib.Log) -> None:
        if log._pending is not None:
            events.append(("settled", log._pending[0]))
        settle(log)

    def item(source: loader.StepSource, position: int) -> tuple[int, types.Batch]:
        items.append(position)
        return read(source, position)

    monkeypatch.setattr(feed, "to_device", placed)
    monkeypatch.setattr(log_lib.Log, "follow", started)
    monkeypatch.setattr(log_lib.Log, "settle", settled)
    monkeypatch.setattr(loader.StepSource, "__getitem__", item)
    result = loop.train(stand.settings(optimizer={"max_steps": 5}), tmp_path)
    assert result.step == 5 and sorted(items) == [0, 1, 2, 3, 4], "the run has more steps, but they are not read"
    # Update 2's batch is placed while update 1 is under way. Update 2, the first that moves a weight, is waited for
    # and looked at. Then on as before: update 5's batch is placed only when 3 is finished.
    expected = "placed 1, started 1, placed 2, settled 1, started 2, settled 2, placed 3, started 3"
    expected += ", placed 4, settled 3, started 4, placed 5, settled 4, started 5, settled 5"
    assert ", ".join(f"{name} {update}" for name, update in events) == expected


def test_a_slow_disk_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    """Each update takes the devices one second; then each step takes four to read, which the devices wait for."""
    stand.use_devices(monkeypatch, 1)
    monkeypatch.setattr(log_lib, "time", clock)
    watch, read = feed.Feed.watch, loader.StepSource.__getitem__

    def watched(batches: feed.Feed, running: Any) -> feed.Moment:
        jax.block_until_ready(running)
        clock.now += 1
        moment = watch(batches, running)
        moment.result()
        return moment

    def slow(source: loader.StepSource, position: int) -> tuple[int, types.Batch]:
        clock.now += 4
        return read(source, position)

    monkeypatch.setattr(feed.Feed, "watch", watched)
    settings = stand.settings(data={"read_threads": 0})  # reads when it is asked, in the same thread
    quick = loop.train(settings, tmp_path / "quick")
    assert "waited for their input" not in capsys.readouterr().out and quick.metrics["input_wait"] == 0
    monkeypatch.setattr(loader.StepSource, "__getitem__", slow)
    result = loop.train(settings, tmp_path / "slow")
    assert (
        "the devices waited for their input 80 % of the time: raise config.data.read_threads (now 0)"
        in capsys.readouterr().out
    )
    assert (result.metrics["input_wait"], result.metrics["step_seconds"]) == (0.8, 5)
    assert stand.metrics(tmp_path / "slow") == stand.metrics(tmp_path / "quick")


def test_a_batch_that_does_not_come_keeps_no_stopped_run(mesh: jax.sharding.Mesh) -> None:
    come, asked = threading.Event(), []

    def stuck() -> Iterator[tuple[int, types.Batch]]:
        yield 0, STEP
        come.wait()

    def stopped() -> bool:
        asked.append(1)
        return len(asked) == 2

    with feed.Feed(stuck(), mesh) as batches:
        assert batches.take(stopped)[0] == 0
        assert batches.take(stopped) is None and len(asked) == 2
    come.set()


def test_what_the_source_raises_is_raised(mesh: jax.sharding.Mesh) -> None:
    def broken() -> Iterator[tuple[int, types.Batch]]:
        raise TimeoutError("disk")
        yield 0, STEP

    with feed.Feed(broken(), mesh) as batches, pytest.raises(TimeoutError, match="disk"):
        batches.take()
