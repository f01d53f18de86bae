"""A model on the engine as the one who labels: what it is asked, and what becomes of its answers."""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import pytest

from tests.curating import made
from tests.curating import world as world_lib
from tests.safety import stand
from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.curating import answering
from vlguard_jax.curating import by_checkpoint


def requests(folder: pathlib.Path, n: int) -> list[answering.Request]:
    for i in range(n):
        world_lib.draw(i).save(folder / f"{i}.png")
    paths = [folder / f"{i}.png" for i in range(n)]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return [
        answering.Request(f"key {i}", f"What is in drawing {i}?", path.name, path, sha256)
        for i, (path, sha256) in enumerate(zip(paths, hashes, strict=True))
    ]


def test_each_picture_is_asked_with_its_text(tmp_path: pathlib.Path) -> None:
    model, engine = stand.make_model(tmp_path, lambda i: f"answer {i}", ends=lambda i: "length" if i else "stop")
    asked = requests(tmp_path, 3)
    settings = settings_lib.ModelSettings(path="models/fox", template="vicuna_v1")
    found = {one.key: one for one in by_checkpoint.ByCheckpoint(model, settings).answer(asked)}
    assert set(found) == {request.key for request in asked}
    for number, prompt in enumerate(engine.asked):
        text = model.tokenizer.decode([int(i) for i in prompt.ids if i != types.IMAGE_TOKEN])
        assert f"drawing {prompt.id[-1]}?" in text and (np.asarray(prompt.ids) == types.IMAGE_TOKEN).sum() == 1
        answer = found[prompt.id]
        assert answer.text.strip() == f"answer {number}" and answer.model == "fox"
        assert answer.finish_reason == ("length" if number else "stop")
        assert answer.prompt_tokens == len(prompt.ids) - 1 + prompt.pictures[0].extent.slots


def test_another_picture_than_was_scanned_is_not_asked_about(tmp_path: pathlib.Path) -> None:
    model, engine = stand.make_model(tmp_path, lambda i: "answer")
    asked = requests(tmp_path, 1)
    world_lib.draw(7).save(tmp_path / "0.png")
    one = by_checkpoint.ByCheckpoint(model, settings_lib.ModelSettings(path="models/fox", template="vicuna_v1"))
    with pytest.raises(errors.UserError, match=r"0\.png: was changed while this ran; run this again"):
        list(one.answer(asked))
    assert not engine.asked


def test_a_language_model_is_refused(tmp_path: pathlib.Path) -> None:
    model, _ = stand.make_model(tmp_path, lambda i: "", vision=False)
    with pytest.raises(errors.UserError, match="cannot see the pictures"):
        by_checkpoint.ByCheckpoint(model, settings_lib.ModelSettings(path="models/fox"))


def test_the_reply_of_an_engine_is_read_like_any_other(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From settings to dataset, with the engine alone in place of the real one."""
    world = world_lib.build(tmp_path / "w", 12, 1, 1)
    by_number: list[str] = []

    def say(number: int) -> str:
        return by_number[number]

    model, engine = stand.make_model(tmp_path, say)
    one = by_checkpoint.ByCheckpoint(model, settings_lib.ModelSettings(path="m", template="vicuna_v1"))

    def prompts(self, asked, lengths):
        asked = list(asked)
        by_number[:] = [world.says(hashlib.sha256(one.path.read_bytes()).hexdigest(), 0) for one in reversed(asked)]
        yield from original(self, asked, lengths)

    original = by_checkpoint.ByCheckpoint._prompts
    monkeypatch.setattr(by_checkpoint.ByCheckpoint, "_prompts", prompts)
    monkeypatch.setattr(by_checkpoint, "make", lambda config: one)
    config = made.config(world, "", top={"answerer": "checkpoint"}, model={"path": "m"}, ask={"tries": 1})
    run = made.curate(config, tmp_path / "run")
    always = {name for name, reason in world.dropped.items() if "always" in name}
    assert {name for name in run.dropped if "h/" not in name} == set(world.dropped) - always
    assert "fox" in (tmp_path / "run" / "dataset" / "README.md").read_text()
    assert len(engine.asked) == len((tmp_path / "run" / "replies.jsonl").read_text().splitlines())
    line = json.loads((tmp_path / "run" / "replies.jsonl").read_text().splitlines()[0])
    assert line["model"] == "fox" and line["prompt_tokens"] > 0
