"""A working directory and the configuration it belongs to."""

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import workdir


def _settings(**changes: Any) -> config.TrainConfig:
    sources = {"chats": config.SourceSettings(path="chats.json", images="pictures", **changes.pop("source", {}))}
    return config.TrainConfig(data=config.DataSettings(sources=sources, **changes.pop("data", {})), **changes)


def test_a_setting_that_is_new_since_counts_as_its_default(tmp_path: pathlib.Path) -> None:
    """Working directories of an older version can be resumed."""
    workdir.claim(tmp_path, _settings())
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["data"]["sources"]["chats"]["weight"], stored["data"]["shapes"], stored["lora"], stored["seed"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    workdir.check(tmp_path, _settings())
    for changed, message in (
        (_settings(data={"shapes": 2}), r"config\.data\.shapes is 2 here and 0 there"),
        (_settings(source={"weight": 2.0}), r"config\.data\.sources\.chats\.weight is 2\.0 here and 1\.0 there"),
        (_settings(lora=config.LoraSettings(rank=4)), r"config\.lora\.rank is 4 here and 0 there"),
    ):
        with pytest.raises(errors.UserError, match=message):
            workdir.check(tmp_path, changed)


def test_a_setting_that_is_gone_is_a_difference(tmp_path: pathlib.Path) -> None:
    workdir.claim(tmp_path, _settings())
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | {"data": stored["data"] | {"colour": 3}}))
    with pytest.raises(errors.UserError, match=r"config\.data\.colour is None here and 3 there"):
        workdir.check(tmp_path, _settings())


def test_evaluations_resume_too(tmp_path: pathlib.Path) -> None:
    settings = config.EvalConfig(model_name="tiny")
    workdir.claim(tmp_path, settings)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["benchmark"]["suffix"], stored["judges"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    workdir.check(tmp_path, settings)
    with pytest.raises(errors.UserError, match=r"config\.judges is \['other'\] here and \['keyword_vlguard_v1'\] there"):
        workdir.check(tmp_path, dataclasses.replace(settings, judges=("other",)))


def test_differences_are_short(tmp_path: pathlib.Path) -> None:
    workdir.claim(tmp_path, _settings(source={"leave_out": tuple(f"category {i}" for i in range(500))}))
    with pytest.raises(errors.UserError) as error:
        workdir.check(tmp_path, _settings())
    assert "leave_out is [] here and ['category 0', 'category 1', 'category 2', 'category 3', ...] there" in str(error.value)


@pytest.mark.parametrize("content", [b"", b" \n", b"{", b"[]", b"null", b"3", b"\xff\xfe", b'{"seed": 1' + b"[" * 5000])
def test_a_damaged_config_is_told(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    for use in (workdir.check, workdir.claim):
        with pytest.raises(errors.UserError, match=r"^--workdir=.*/config\.json: .*; put it back, or delete it: ") as error:
            use(tmp_path, _settings())
        assert "\n" not in str(error.value)
    assert (tmp_path / "config.json").read_bytes() == content


def test_a_try_claims_nothing(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "new" / "run"
    workdir.prepare(folder)
    assert list(folder.iterdir()) == []
    workdir.check(folder, _settings())
    for impossible in (tmp_path / "file" / "run", tmp_path / "nul\0", tmp_path / ("x" * 300)):
        (tmp_path / "file").write_text("x")
        with pytest.raises(errors.UserError, match="cannot be written"):
            workdir.prepare(impossible)


def test_results_of_nobody_are_refused(tmp_path: pathlib.Path) -> None:
    workdir.check_unclaimed(tmp_path, "world")
    (tmp_path / "world").mkdir()
    with pytest.raises(errors.UserError, match=r"holds world and no config\.json"):
        workdir.check_unclaimed(tmp_path, "world")
    workdir.claim(tmp_path, _settings())
    workdir.check_unclaimed(tmp_path, "world")
