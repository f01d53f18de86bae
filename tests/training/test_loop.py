"""The loop: resume, preemption, arms, exports and bad settings."""

import dataclasses
import gc
import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from tests.training import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import terminal
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.training import feed
from vlguard_jax.training import loop


def _final(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    return trees.flatten(load.load(workdir / "model").params)


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)


@pytest.mark.parity
@pytest.mark.parametrize("lora", [{}, {"rank": 4, "dropout": 0.3}], ids=["full", "lora-dropout"])
def test_stopped_and_resumed_equals_uninterrupted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lora: dict
) -> None:
    run = {"export": "llava", "save_every": 2, "keep": 2}
    whole = loop.train(stand.settings(lora=lora, run=run), tmp_path / "whole")
    assert whole.finished and whole.step == 6
    to_device, steps = feed.to_device, []

    def preempted(batch, mesh):
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return to_device(batch, mesh)

    monkeypatch.setattr(feed, "to_device", preempted)
    cut = loop.train(stand.settings(lora=lora, run=run), tmp_path / "cut")
    assert not cut.finished and cut.step == 3 and cut.model_path is None
    # A run that died later than its last save has written lines that the resumed run writes again.
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as f:
        f.write('{"schema": 1, "step": 4, "loss": 99.0}\n{"torn')
    broken = not lora  # then the run goes on from the update before, and says why
    if broken:
        path = max((tmp_path / "cut/checkpoints/3/state").rglob("d/*"), key=lambda file: file.stat().st_size)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    capsys.readouterr()
    resumed = loop.train(stand.settings(lora=lora, run=run), tmp_path / "cut")
    assert resumed.finished and len(steps) == (7 if broken else 6)
    said = " ".join(capsys.readouterr().out.split())
    assert f"resumed after update {2 if broken else 3}" in said
    assert (tmp_path / "cut/checkpoints/3.broken-1").exists() == broken == ("set aside as checkpoints/3.bro" in said)
    assert stand.metrics(tmp_path / "cut") == stand.metrics(tmp_path / "whole")
    ours, theirs = _final(tmp_path / "cut"), _final(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_full_tuning_changes_decoder_and_projector_only(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "_form", "quiet")
    loop.train(stand.settings(run={"export": "llava"}), tmp_path)
    said = capsys.readouterr().out  # the result alone
    assert said.startswith(f"wrote {tmp_path / 'model'} (llava layout)") and said.count("\n") == 1
    before = trees.flatten(load.load(stand.folder() / "init").params)
    for name, value in _final(tmp_path).items():
        assert np.array_equal(value, before[name]) == name.startswith("vision."), name


@pytest.mark.parity
def test_lora_leaves_the_base_alone(tmp_path: pathlib.Path) -> None:
    loop.train(stand.settings(lora={"rank": 4}, run={"export": "peft"}), tmp_path)
    tuned = load.load(tmp_path / "model", base=str(stand.folder() / "init"))
    before = trees.flatten(load.load(stand.folder() / "init").params)
    after = trees.flatten(tuned.params)
    assert tuned.lora is not None and tuned.lora.rank == 4
    for name, value in before.items():
        assert np.array_equal(after[name], value) != name.startswith("projector."), name
    assert all(np.any(after[name]) for name in after if name.endswith("lora_b"))


def test_a_resumed_run_holds_one_state(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the fresh one beside it, which is as large."""
    run, held = loop._run, []

    def watched(*args):
        gc.collect()
        held.append(sum(array.nbytes for array in jax.live_arrays()))
        return run(*args)

    monkeypatch.setattr(loop, "_run", watched)
    for updates in (1, 2):
        loop.train(stand.settings(optimizer={"max_steps": updates}), tmp_path)
    assert held[1] < 1.1 * held[0]


BAD = {
    "other run": (
        {"optimizer": {"learning_rate": 5e-4}},
        r"config\.optimizer\.learning_rate is 0\.0005 here and 0\.001 there",
    ),
    "no model": ({"model": {"path": ""}}, r"config\.model\.path is empty"),
    "unknown template": ({"model": {"template": "vicuna_v2"}}, "did you mean 'vicuna_v1'"),
    "unknown loss": ({"loss": "cros_entropy"}, "did you mean 'cross_entropy'"),
    "loss elsewhere": ({"loss": "nowhere.at:all"}, "cannot be imported"),
    "rows and devices": ({"mesh": {"fsdp": 3}}, "does not multiply to the 1 devices"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_one_clear_line(tmp_path: pathlib.Path, case: str) -> None:
    changes, message = BAD[case]
    if case == "other run":
        loop.train(stand.settings(optimizer={"max_steps": 1}), tmp_path)
        changes = {"optimizer": {**changes["optimizer"], "max_steps": 1}}
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(errors.UserError, match=message) as error:
        loop.train(stand.settings(**changes), tmp_path)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "a mistake must not claim the directory"


def test_resuming_on_other_weights_is_refused(tmp_path: pathlib.Path) -> None:
    shutil.copytree(stand.folder() / "init", tmp_path / "model")
    changes = {"model": {"path": str(tmp_path / "model")}}
    loop.train(stand.settings(**changes, optimizer={"max_steps": 1}), tmp_path / "run")
    shutil.rmtree(tmp_path / "model")
    stand.write_model(tmp_path / "model", seed=1)
    with pytest.raises(errors.UserError, match="its weights are not those this run started from"):
        loop.train(stand.settings(**changes, optimizer={"max_steps": 2}), tmp_path / "run")


def test_resuming_on_other_conversations_is_refused(tmp_path: pathlib.Path) -> None:
    """A record fewer, and fewer words in one: the plan of the updates would be another."""
    chats = json.loads((stand.folder() / "chats.json").read_text())
    source = dataclasses.replace(stand.settings().data.sources["chats"], path=str(tmp_path / "chats.json"))
    changes = {"data": {"sources": {"chats": source}}}
    (tmp_path / "chats.json").write_text(json.dumps(chats))
    loop.train(stand.settings(**changes, optimizer={"max_steps": 1}), tmp_path / "run")
    for changed in (chats[:-1], [*chats[:-1], chats[0] | {"id": chats[-1]["id"]}]):
        (tmp_path / "chats.json").write_text(json.dumps(changed))
        with pytest.raises(errors.UserError, match=r"conversations.*are not those that .*checkpoints/1 was trained on"):
            loop.train(stand.settings(**changes, optimizer={"max_steps": 2}), tmp_path / "run")


@pytest.mark.parity
def test_a_longer_run_may_go_on(tmp_path: pathlib.Path) -> None:
    """max_steps, mesh and the run section may change between a run and its resumption."""
    assert loop.train(stand.settings(optimizer={"max_steps": 2}), tmp_path).step == 2
    assert loop.train(stand.settings(run={"rows": 4}), tmp_path).step == 6
    assert [line["step"] for line in stand.metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_first_line_states_the_supervised_share(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = stand.settings(optimizer={"max_steps": 1})
    capsys.readouterr()
    loop.train(settings, tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert said[0].startswith("supervised tokens ") and "24 conversations, 18 pictures" in said[0]
    assert any(line.startswith("rows: 8 x 160 tokens (6 steps)") for line in said)


@pytest.mark.parity
def test_adapters_for_peft_stand_on_the_folder_that_was_trained(tmp_path: pathlib.Path) -> None:
    """A run that has changed nothing says so at its end, and keeps its checkpoint."""
    save.save_hf(load.load(stand.folder() / "init"), tmp_path / "hf")
    for steps in (1, 3):
        settings = stand.settings(lora={"rank": 4}, run={"export": "peft-hf"}, optimizer={"max_steps": steps})
        settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, path=str(tmp_path / "hf")))
        if steps == 1:
            with pytest.raises(errors.UserError, match="these adapters would change nothing"):
                loop.train(settings, tmp_path / "once")
            assert not (tmp_path / "once/model").exists() and (tmp_path / "once/checkpoints").exists()
        else:
            loop.train(settings, tmp_path / "run")
    tuned, before = load.load(tmp_path / "run/model"), load.load(tmp_path / "hf")
    assert tuned.base == before.base and tuned.lora is not None and tuned.lora.rank == 4
    found = trees.flatten(tuned.params)
    for name, value in trees.flatten(before.params).items():
        assert np.array_equal(found[name], value) != name.startswith("projector."), name


def test_config_of_the_run_is_stored(tmp_path: pathlib.Path) -> None:
    settings = stand.settings(optimizer={"max_steps": 1})
    loop.train(settings, tmp_path)
    assert config.resolve(json.loads((tmp_path / "config.json").read_text()), config.TrainConfig) == settings


@pytest.mark.parametrize("kind", ["llava", "hf", pytest.param("peft", marks=pytest.mark.parity)])
def test_the_model_tells_what_it_was_trained_on(tmp_path: pathlib.Path, kind: str) -> None:
    source = dataclasses.replace(stand.settings().data.sources["chats"], stand_in=True)
    lora = {"rank": 2} if kind == "peft" else {}
    settings = stand.settings(
        data={"sources": {"chats": source}}, lora=lora, run={"export": kind}, optimizer={"max_steps": 1}
    )
    loop.train(settings, tmp_path / "run")
    base = {"base": str(stand.folder() / "init")} if kind == "peft" else {}
    told = load.load(tmp_path / "run" / "model", **base).extras["provenance"]
    assert told["stand_in"] and told["updates"] == 1 and told["source"] == settings.model.path
    assert told["source_sha256"] == load.load(stand.folder() / "init").weights_sha256
