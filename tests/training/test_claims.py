"""A folder belongs to a training from its first update on, and to no other afterwards."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.training import stand
from vlguard_jax import errors
from vlguard_jax import workdir
from vlguard_jax.training import feed
from vlguard_jax.training import loop


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)


def test_the_first_update_claims(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails before it, as memory does, leaves the folder to the corrected command."""

    def refuse(batch, mesh):
        raise errors.UserError("too large")

    with monkeypatch.context() as broken:
        broken.setattr(feed, "to_device", refuse)
        with pytest.raises(errors.UserError, match="too large"):
            loop.train(stand.settings(optimizer={"learning_rate": 0.5}), tmp_path)
    assert not (tmp_path / workdir.CONFIG_FILE).exists()
    done = loop.train(stand.settings(optimizer={"max_steps": 1}), tmp_path)
    assert done.finished and (tmp_path / workdir.CONFIG_FILE).exists()


def test_the_checkpoint_says_whose_it_is(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = stand.settings(optimizer={"max_steps": 2})
    loop.train(settings, tmp_path)
    config_file = tmp_path / workdir.CONFIG_FILE
    whole, metrics = config_file.read_text(), (tmp_path / "metrics.jsonl").read_bytes()
    other = stand.settings(optimizer={"max_steps": 3, "learning_rate": 0.5})
    for damage in (lambda: config_file.write_text(""), lambda: config_file.write_text(whole[:50])):
        damage()
        for tried in (settings, other):
            with pytest.raises(errors.UserError, match=r"^--workdir=.*config\.json: .*; put it back, or delete it"):
                loop.train(tried, tmp_path)
    config_file.unlink()
    with pytest.raises(
        errors.UserError, match=r"checkpoints/2 belongs to another run: config\.optimizer\.learning_rate is 0\.5 here"
    ):
        loop.train(other, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics and not config_file.exists()
    more = loop.train(stand.settings(optimizer={"max_steps": 3}), tmp_path)
    assert more.finished and more.step == 3
    assert "config.json was missing; the checkpoint records the same settings" in capsys.readouterr().out.replace(
        "\n", " "
    )
    assert config_file.exists()


def test_a_checkpoint_that_does_not_say_whose_it_is(tmp_path: pathlib.Path) -> None:
    settings = stand.settings(optimizer={"max_steps": 2})
    loop.train(settings, tmp_path)
    path = tmp_path / "checkpoints/2/meta/metadata"
    record = json.loads(path.read_bytes())
    for key, odd in (("config", 7), ("base_sha256", ["a"]), ("config_hash", None), ("stand_in", 1)):
        without = {name: value for name, value in record.items() if name != key}
        for changed in (without, {**record, key: odd}):
            path.write_text(json.dumps(changed))
            with pytest.raises(
                errors.UserError, match=rf"checkpoints/2: (.*{key}|damaged record).*; no other step here is whole"
            ):
                loop.train(settings, tmp_path)
    path.write_text(json.dumps(record))
    assert loop.train(settings, tmp_path).step == 2
