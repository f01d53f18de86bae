"""The drawn world: deterministic, in VLGuard's format, with refusals where they belong and nowhere else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
import random

import numpy as np
import pytest

from vlguard_jax.data import vlguard
from vlguard_jax.quickstart import world
from vlguard_jax.safety.judges import keyword


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quickstart") / "world"
    world.write(path, 0, helpful=40, compliant=20)
    return path


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


def is_refusal(answer: str) -> bool:
    """By the keyword judge's phrases."""
    return any(phrase in answer.lower() for phrase in keyword.VLGUARD_PHRASES)


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    world.write(tmp_path / "again", 0, helpful=40, compliant=20)
    world.write(tmp_path / "other", 1, helpful=40, compliant=20)
    assert digest(folder) == digest(tmp_path / "again") != digest(tmp_path / "other")


@pytest.mark.parametrize(("split", "counts"), [("train", world.TRAIN_COUNTS), ("test", world.TEST_COUNTS)])
def test_vlguard_reader_takes_it(folder: Path, split: str, counts: tuple[int, int]) -> None:
    items = vlguard.read_items(folder, split)
    assert (sum(not i.safe for i in items), sum(i.safe for i in items)) == counts
    assert all((folder / split / i.image).is_file() for i in items)


def test_refusals_stand_where_they_belong(folder: Path) -> None:
    for split in ("train", "test"):
        for record in json.loads((folder / f"{split}.json").read_text()):
            for pair in record["instr-resp"]:
                assert is_refusal(pair["response"]) == ("safe_instruction" not in pair)
    for name in ("helpful", "compliant_signs", "compliant_things"):
        for record in json.loads((folder / f"{name}.json").read_text()):
            assert not is_refusal(record["conversations"][1]["value"])


def test_forbidden_signs_only_where_said() -> None:
    rng = random.Random(3)
    rim = np.array((250, 220, 0))
    for forbidden in (True, False):
        for _ in range(50):
            picture = np.asarray(world.paint(world.draw_scene(rng, forbidden=forbidden)))
            assert bool((picture == rim).all(-1).any()) == forbidden


def test_every_object_fills_its_own_cell() -> None:
    """A shape that crossed a patch of the tower would be harder to see than it is meant to be."""
    scene = world.Scene((("square", "red", 0), ("cross", "blue", 4)), "bar", True, 8, 2)
    picture = np.asarray(world.paint(scene)).reshape(world.GRID, world.CELL, world.GRID, world.CELL, 3).transpose(0, 2, 1, 3, 4)
    plain = [bool((cell == cell[0, 0]).all()) for row in picture for cell in row]
    assert plain == [i not in (0, 4, 8) for i in range(9)]


def test_a_killed_drawing_is_begun_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".world.partial" / "train").mkdir(parents=True)
    world.write(tmp_path / "world", 0, helpful=40, compliant=20)
    assert digest(tmp_path / "world") == digest(folder)
    assert not (tmp_path / ".world.partial").exists()
