"""Two processes with four devices each do what one device does."""

import dataclasses
import pathlib
import signal
import time

import numpy as np
import pytest

from tests.multiprocess import hosts
from tests.training import stand
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.training import loop

MESHES = {"full": {"data": 2, "fsdp": 4}, "lora": {"fsdp": 4, "tensor": 2}}


def _settings(kind: str, **changes):
    return stand.settings(lora={"rank": 4} if kind == "lora" else {}, run={"export": "llava"}, optimizer={"max_steps": 5}, **changes)


@pytest.mark.parametrize("kind", MESHES)
def test_two_processes_equal_one_device(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    running = hosts.start(tmp_path / "two", [_settings(kind, mesh=MESHES[kind])] * 2, devices=4)
    stand.use_devices(monkeypatch, 1)
    loop.train(_settings(kind), tmp_path / "one")
    assert hosts.finish(running) == [0, 0], hosts.output(tmp_path / "two", 0) + hosts.output(tmp_path / "two", 1)
    logs = [(tmp_path / "two" / "logs" / f"process-{i}.log").read_text() for i in (0, 1)]
    assert all("5 updates of" in log for log in logs)
    assert "5 updates of" in hosts.output(tmp_path / "two", 0)
    assert "5 updates of" not in hosts.output(tmp_path / "two", 1)
    losses = [[line["loss"] for line in stand.metrics(tmp_path / name)] for name in ("two", "one")]
    assert len(losses[0]) == 5
    np.testing.assert_allclose(*losses, rtol=1e-5)
    ours, theirs = (trees.flatten(load.load(tmp_path / name / "model").params) for name in ("two", "one"))
    for path, value in ours.items():
        off = np.linalg.norm(value - theirs[path]) / max(np.linalg.norm(theirs[path]), 1e-12)
        assert off < 1e-5, f"{path}: {off}"


def test_other_settings_in_another_process_are_named(tmp_path: pathlib.Path) -> None:
    one, other = _settings("full"), _settings("full", seed=7)
    assert hosts.finish(hosts.start(tmp_path, [one, other], devices=1)) == [2, 2]
    assert "process 1 was started with another config than process 0" in hosts.output(tmp_path, 0)
    assert f"process 1 has config.seed=7, process 0 has {one.seed}" in hosts.output(tmp_path, 1)
    assert not (tmp_path / "config.json").exists()


def test_a_missing_process_is_said_in_time(tmp_path: pathlib.Path) -> None:
    began = time.monotonic()
    codes = hosts.finish(hosts.start(tmp_path, [_settings("full")], devices=1, count=2, VLGUARD_START_TIMEOUT="5"))
    assert codes == [2], hosts.output(tmp_path, 0)
    assert time.monotonic() - began < 60
    last = hosts.output(tmp_path, 0).strip().splitlines()[-1]
    assert last.startswith("error: not all of 2 processes came within 5 s")


def test_a_signal_to_one_stops_all_at_the_same_update(tmp_path: pathlib.Path) -> None:
    settings = dataclasses.replace(_settings("full", mesh={"fsdp": 2}))
    settings = dataclasses.replace(settings, optimizer=dataclasses.replace(settings.optimizer, epochs=2000.0, max_steps=0))
    running = hosts.start(tmp_path, [settings] * 2, devices=1)
    lines = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + hosts.SECONDS
    while not (lines.exists() and lines.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.2)
    running[1].send_signal(signal.SIGTERM)
    assert hosts.finish(running) == [75, 75], hosts.output(tmp_path, 0) + hosts.output(tmp_path, 1)
    (saved,) = (int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert stand.metrics(tmp_path)[-1]["step"] == saved
