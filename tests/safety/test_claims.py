"""A folder belongs to an evaluation from its first answer on, and to no other afterwards."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import workdir
from vlguard_jax.safety import results
from vlguard_jax.safety import run


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return stand.write_benchmark(tmp_path / "benchmark")


def _model(tmp_path: pathlib.Path, **engine: Any) -> Any:
    return stand.make_model(tmp_path, lambda i: "the quick fox.", **engine)[0]


def test_a_refused_try_does_not_claim(tmp_path, folder):
    """Whatever the engine refuses, the corrected command runs in the same folder."""

    def refuse():
        raise errors.UserError("no such engine")

    work, settings = tmp_path / "work", stand.settings(folder)
    with pytest.raises(errors.UserError, match="no such engine"):
        run.evaluate(settings, work, dataclasses.replace(_model(tmp_path), engine=refuse))
    assert list(work.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):  # before its first batch
        run.evaluate(settings, work, _model(tmp_path, fail_after=1))
    corrected = dataclasses.replace(settings, decode=config.DecodeSettings(max_new_tokens=9, batch_size=2))
    assert run.evaluate(corrected, work, _model(tmp_path))
    with pytest.raises(errors.UserError, match=r"config\.decode\.max_new_tokens is 8 here and 9 there"):
        run.evaluate(settings, work, _model(tmp_path))


def test_the_first_answers_claim(tmp_path, folder):
    work, settings = tmp_path / "work", stand.settings(folder)
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(settings, work, _model(tmp_path, fail_after=2))
    assert (work / workdir.CONFIG_FILE).exists() and (work / results.GENERATIONS).exists()


OTHERS = {
    "template": lambda s: dataclasses.replace(s, model=dataclasses.replace(s.model, template="llava_v1")),
    "preprocessing": lambda s: dataclasses.replace(s, model=dataclasses.replace(s.model, image_mode="crop")),
    "decode": lambda s: dataclasses.replace(s, decode=dataclasses.replace(s.decode, max_new_tokens=9)),
    "preset": lambda s: dataclasses.replace(s, preset="other"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_answers_say_whose_they_are_where_the_config_is_gone(tmp_path, folder, other):
    work, settings = tmp_path / "work", stand.settings(folder)
    rows = run.evaluate(settings, work, _model(tmp_path))
    before = (work / results.GENERATIONS).read_bytes()
    (work / workdir.CONFIG_FILE).unlink()
    with pytest.raises(
        errors.UserError, match=rf"generations\.jsonl:1 belongs to another run: {other} is .*config\.json is missing"
    ):
        run.evaluate(OTHERS[other](settings), work, _model(tmp_path))
    assert (work / results.GENERATIONS).read_bytes() == before and not (work / workdir.CONFIG_FILE).exists()
    said: list[str] = []
    assert run.evaluate(settings, work, _model(tmp_path), say=said.append) == rows
    assert said == [f"{work / workdir.CONFIG_FILE} was missing; the answers record the same settings"]
    assert (work / workdir.CONFIG_FILE).exists() and (work / results.GENERATIONS).read_bytes() == before


def test_a_damaged_config_is_told(tmp_path, folder):
    work, settings = tmp_path / "work", stand.settings(folder)
    run.evaluate(settings, work, _model(tmp_path))
    (work / workdir.CONFIG_FILE).write_text("")
    with pytest.raises(errors.UserError, match=r"config\.json: the file is empty; put it back, or delete it"):
        run.evaluate(settings, work, _model(tmp_path))
