"""A folder belongs to an evaluation from its first answer on, and to no other afterwards."""

from __future__ import annotations

import dataclasses
import json
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
    with pytest.raises(KeyboardInterrupt):  # before its first answer
        run.evaluate(settings, work, _model(tmp_path, fail_after=0))
    corrected = dataclasses.replace(settings, decode=config.DecodeSettings(max_new_tokens=9, batch_size=2))
    assert run.evaluate(corrected, work, _model(tmp_path))
    with pytest.raises(errors.UserError, match=r"config\.decode\.max_new_tokens is 8 here and 9 there"):
        run.evaluate(settings, work, _model(tmp_path))


def test_the_first_answers_claim(tmp_path, folder):
    work, settings = tmp_path / "work", stand.settings(folder)
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(settings, work, _model(tmp_path, fail_after=2))
    assert (work / workdir.CONFIG_FILE).exists() and (work / results.GENERATIONS).exists()


def test_slots_change_answers_in_half_precision_alone(tmp_path, folder):
    """Only in fp32 a run may go on with another number of them."""
    settings = stand.settings(folder)
    other = dataclasses.replace(settings, decode=config.DecodeSettings(max_new_tokens=8, batch_size=3))
    for dtype in ("fp32", "bf16"):
        work, model = tmp_path / dtype, dataclasses.replace(_model(tmp_path), dtype=dtype)
        rows = run.evaluate(settings, work, model)
        if dtype == "fp32":
            assert run.evaluate(other, work, model) == rows and rows[0].decode.slots == 0
        else:
            assert rows[0].decode.slots == 2
            with pytest.raises(
                errors.UserError,
                match=r"config\.decode\.batch_size is 3 here and 2 there, and in bf16 answers depend on .*same config",
            ):
                run.evaluate(other, work, model)
        sampled = dataclasses.replace(other.decode, batch_size=2, temperature=1.0)
        with pytest.raises(errors.UserError, match=r"config\.decode\.temperature is 1\.0 here and 0\.0 there"):
            run.evaluate(dataclasses.replace(settings, decode=sampled), work, model)


def test_answers_that_do_not_say_their_slots_are_asked_again(tmp_path, folder):
    """As bf16 answers were written before slots entered the key."""
    work, said, model = tmp_path / "work", [], dataclasses.replace(_model(tmp_path), dtype="bf16")
    rows = run.evaluate(stand.settings(folder), work, model)
    path = work / results.GENERATIONS
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    old = [line | {"key": f"old {line['key']}", "decode": line["decode"] | {"slots": 0}} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    assert run.evaluate(stand.settings(folder), work, model, say=said.append) == rows
    assert any(f"{len(old)} answers in bf16 do not say how many" in one and "asked again" in one for one in said)
    assert len(path.read_text().splitlines()) == 2 * len(old)


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
