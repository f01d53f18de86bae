"""The whole quickstart on a very small world: every file is there, and a run that was cut off ends with the same summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlguard_jax import errors
from vlguard_jax.quickstart import arms
from vlguard_jax.quickstart import story
from vlguard_jax.quickstart import world
from vlguard_jax.training import loop

TINY = (
    arms.Arm("base", "", ("helpful", "compliant_signs", "compliant_things"), epochs=1.0, learning_rate=2e-3),
    arms.Arm("posthoc", "base", ("train", "helpful_sample"), epochs=1.0, learning_rate=1e-3),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "ARMS", TINY)
    monkeypatch.setattr(arms, "HELPFUL", 64)
    monkeypatch.setattr(arms, "COMPLIANT", 16)
    monkeypatch.setattr(arms, "POSTHOC_HELPFUL", 32)
    monkeypatch.setattr(world, "TRAIN_COUNTS", (16, 16))
    monkeypatch.setattr(world, "TEST_COUNTS", (8, 8))


def summary(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "summary.json").read_text())


def test_whole_story_and_a_cut_off_one_end_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert story.tell(tmp_path / "whole", 0)
    rows = summary(tmp_path / "whole")
    assert [(r["model"], r["subset"], r["n"]) for r in rows] == [
        (arm.name, subset, 8) for arm in TINY for subset in ("unsafes", "safe_unsafes", "safe_safes")
    ]
    assert all(0 <= r["ci_low"] <= r["rate"] <= r["ci_high"] <= 1 and not r["stand_in"] for r in rows)

    train, seen = loop.train, []

    def cut_off(settings: Any, workdir: Path) -> loop.Result:
        seen.append(Path(workdir).name)
        if seen == ["base", "posthoc"]:
            raise KeyboardInterrupt
        return train(settings, workdir)

    monkeypatch.setattr(loop, "train", cut_off)
    with pytest.raises(KeyboardInterrupt):
        story.tell(tmp_path / "cut", 0)
    assert story.tell(tmp_path / "cut", 0)
    assert seen == ["base", "posthoc", "posthoc"]  # what was finished is not trained again
    assert summary(tmp_path / "cut") == rows


def test_another_seed_needs_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "ARMS", ())
    assert story.tell(tmp_path, 0)
    with pytest.raises(errors.UserError, match="seed"):
        story.tell(tmp_path, 1)


@pytest.mark.parametrize("arm", arms.ARMS, ids=lambda a: a.name)
def test_arms_read_what_the_world_holds(arm: arms.Arm, tmp_path: Path) -> None:
    world.write(tmp_path / "world", 0, helpful=40, compliant=16)
    sources = arms.train_config(arm, tmp_path, 0).data.sources
    assert [name for name, source in sources.items() if not (Path(source.path).is_file() and Path(source.images).is_dir())] == []
