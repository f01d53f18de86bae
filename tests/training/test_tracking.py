"""Curves and answers in TensorBoard's files and in an offline run of Weights & Biases, read without their writers."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import struct
from typing import Any

import pytest
from tensorboardX.proto import event_pb2
import wandb
from wandb.proto import wandb_internal_pb2

from tests.training import probing
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.training import loop
from vlguard_jax.training import tracking

BLOCK, HEAD = 32768, 7  # of the log of a run: LevelDB's format behind seven bytes


def _records(path: pathlib.Path) -> list[bytes]:
    """The records of a run's log, whose parts have checksum, length and kind (whole, first, middle, last) before
    them."""
    data, at, found, parts = path.read_bytes(), HEAD, [], b""
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEAD])
        parts += data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (1, 4):
            found.append(parts)
            parts = b""
    return found


def _logged(folder: pathlib.Path) -> tuple[list[str], list[dict[str, Any]]]:
    """(ids of the runs, what was logged) of all runs in WORKDIR/wandb, in the order of their files."""
    ids, lines = [], []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda found: found.stat().st_mtime_ns):
        for data in _records(path):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.HasField("run"):
                ids.append(record.run.run_id)
            if record.HasField("history"):
                lines.append(
                    {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                )
    return ids, lines


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run that is stopped after update 2 and goes on to 4, with a probe after each two."""
    folder = tmp_path_factory.mktemp("tracked") / "posthoc"
    with pytest.MonkeyPatch.context() as patch:
        stand.use_devices(patch, 1)
        for updates in (2, 4):
            run = {"wandb": "offline", "tensorboard": True}
            loop.train(stand.settings(probe=probing.probe(), run=run, optimizer={"max_steps": updates}), folder)
    wandb.teardown()  # its process writes what is left
    return folder


def test_an_offline_run_has_the_curves(tracked: pathlib.Path) -> None:
    """Each start is a file, under one id; the update is a value of each line."""
    ids, lines = _logged(tracked)
    assert len(ids) == 2 and len(set(ids)) == 1 == len({*ids, (tracked / tracking.WANDB_ID).read_text().strip()})
    losses = {line["update"]: line["loss"] for line in lines if "loss" in line}
    assert losses == {line["step"]: line["loss"] for line in stand.metrics(tracked)} and len(losses) == 4
    rates = {line["update"]: line[f"probe/{probing.RATES[0]}"] for line in lines if f"probe/{probing.RATES[0]}" in line}
    assert rates == {0: 1.0, 2: 1.0, 4: 1.0}


def test_an_offline_run_has_answers(tracked: pathlib.Path) -> None:
    _, lines = _logged(tracked)
    tables = {line["update"]: line["probe/answers.path"] for line in lines if "probe/answers.path" in line}
    assert set(tables) == {0, 2, 4}
    (path,) = tracked.glob(f"wandb/offline-run-*/files/{tables[4]}")
    table = json.loads(path.read_text())
    assert table["columns"] == ["evaluation", "subset", "item_id", "response", "verdicts"]
    answers = probing.answers(tracked / "probe/4/tiny")
    assert {(subset, item): answer for _, subset, item, answer, _ in table["data"]}.items() <= answers.items()
    assert [row[1] for row in table["data"]].count("safe_safes") == 4


def test_tensorboard_has_rates_and_answers(tracked: pathlib.Path) -> None:
    rates, texts = {}, {}
    for path in sorted((tracked / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            size = struct.unpack("<Q", data[:8])[0]
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                if value.tag == f"probe/{probing.RATES[2]}":
                    rates[event.step] = value.simple_value
                if value.tag.startswith("probe/tiny/safe_safes/text"):
                    texts[event.step] = value.tensor.string_val[0].decode()
    assert rates == {0: 0.0, 2: 0.0, 4: 0.0} and set(texts) == {0, 2, 4}
    assert texts[4].count("(keyword_vlguard_v1: comply)") == 4


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tracking.check(config.RunSettings())
    with pytest.raises(errors.UserError, match=r"needs the package wandb: pip install (-e )?'.*', or set"):
        tracking.check(config.RunSettings(wandb="offline"))


def test_a_refused_run_is_one_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(errors.UserError, match=r"refuses the run \(.*No API key configured.*log in with") as error:
        tracking.opened(stand.settings(run={"wandb": "online"}), tmp_path, 0)
    assert "\n" not in str(error.value)
