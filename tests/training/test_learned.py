"""A run that learns nothing says so: before it starts, and when it ends."""

import json
import pathlib
import shutil

import pytest

from tests.training import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.training import learned
from vlguard_jax.training import loop


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)


def test_one_update_is_told_before_it_starts() -> None:
    settings = config.OptimizerSettings()
    assert learned.before(settings, total=2, last=2) == [] == learned.before(settings, total=300, last=2)
    (line,) = learned.before(settings, total=1, last=1)
    assert "LEARNS NOTHING" in line and "the data is one step" in line and "config.data.batch_size" in line
    (line,) = learned.before(config.OptimizerSettings(max_steps=1), total=6, last=1)
    assert "config.optimizer.max_steps=1" in line
    # Without warm-up the first update has the whole learning rate.
    assert learned.before(config.OptimizerSettings(warmup_ratio=0.0), total=1, last=1) == []


def test_what_is_said_at_the_end() -> None:
    settings = config.OptimizerSettings()
    assert learned.after(settings, total=6, done=6, applied=6, in_a_row=0) == []
    (line,) = learned.after(settings, total=6, done=6, applied=4, in_a_row=0)
    assert line == "2 of 6 updates were skipped because loss or gradient was not finite"
    (line,) = learned.after(settings, total=6, done=6, applied=4, in_a_row=2)
    assert line.endswith("the last 2 in a row: the model is that of update 4")
    skipped, nothing = learned.after(settings, total=6, done=6, applied=1, in_a_row=5)
    assert skipped.startswith("5 of 6") and nothing.startswith("NOTHING WAS LEARNED")
    with pytest.raises(errors.UserError, match="all 6 updates were skipped"):
        learned.after(settings, total=6, done=6, applied=0, in_a_row=6)


def test_a_run_of_one_update(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = stand.settings(optimizer={"max_steps": 1})
    loop.train(settings, tmp_path)
    said = capsys.readouterr().out
    before, after = said.index("THIS RUN LEARNS NOTHING"), said.index("NOTHING WAS LEARNED")
    assert before < after
    assert loop.train(stand.settings(optimizer={"max_steps": 3}), tmp_path).step == 3
    assert "NOTHING" not in capsys.readouterr().out


@pytest.mark.parity
def test_a_run_whose_updates_were_all_skipped_is_no_result(tmp_path: pathlib.Path) -> None:
    settings = stand.settings(
        loss="tests.training.test_step:not_a_number", optimizer={"max_steps": 3}, run={"export": "llava"}
    )
    for _ in range(2):  # and again when it is started again
        with pytest.raises(
            errors.UserError, match=r"all 3 updates were skipped .* nothing was learned, and no model is written"
        ):
            loop.train(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert [line["skipped"] for line in stand.metrics(tmp_path / "run")] == [1, 1, 1]


def test_no_supervised_token_at_all(tmp_path: pathlib.Path) -> None:
    chats = json.loads((stand.folder() / "chats.json").read_text())
    for chat in chats:
        chat["conversations"][1]["value"] = ""
    (tmp_path / "chats.json").write_text(json.dumps(chats))
    source = config.SourceSettings(path=str(tmp_path / "chats.json"), images=str(stand.folder() / "pictures"))
    data = {"sources": {"chats": source}, "on_mismatch": "reference", "on_empty_group": "zero"}
    with pytest.raises(errors.UserError, match="no conversation has a supervised token"):
        loop.train(stand.settings(data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_conversations_beyond_the_model(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(stand.folder() / "init", tmp_path / "model")
    (tmp_path / "model" / "manifest.json").unlink()  # the config is changed on purpose
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"max_position_embeddings": 50}))
    model = {"path": str(tmp_path / "model")}
    with pytest.raises(
        errors.UserError,
        match=r"chats\.json: record .* tokens, and the model has 50 positions .*config\.data\.max_len=50",
    ):
        loop.train(stand.settings(model=model), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    loop.train(stand.settings(model=model, data={"max_len": 50}, optimizer={"max_steps": 2}), tmp_path / "cut")
    path.write_text(json.dumps(values | {"max_position_embeddings": 150}))
    capsys.readouterr()
    loop.train(stand.settings(model=model, optimizer={"max_steps": 2}), tmp_path / "short")
    assert "config.data.max_len=160 is beyond the model's 150 positions" in capsys.readouterr().out
