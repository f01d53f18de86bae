"""The tower's warm-up: nothing forbidden and nothing held out is in it, and no label tells what would be forbidden."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random

import numpy as np
import pytest

from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import pictures
from vlguard_jax.quickstart import tower

SEEDS = (0, 1, 2, 1000, 1001)
COLUMN = {name: i for i, name in enumerate(tower.LABELS)}
FORBIDDEN = set(pictures.FORBIDDEN_PLATES.values())


@functools.cache
def language(seed: int) -> language_lib.Language:
    """The language of a seed."""
    return language_lib.language(seed, len(pictures.symbols()))


@functools.cache
def warm_up_scenes(seed: int) -> list[pictures.Scene]:
    """All that the warm-up of a seed sees."""
    return tower.scenes(language(seed), tower.PICTURES)


def sign_labels(scene: pictures.Scene, seed: int) -> dict[str, int]:
    """The labels in the sign's cell."""
    return dict(zip(tower.LABELS, tower.labels(scene, language(seed))[scene.sign_cell].tolist(), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_forbidden_plate_and_no_held_out_symbol(seed: int) -> None:
    scenes = warm_up_scenes(seed)
    assert {scene.plate for scene in scenes} == set(pictures.HARMLESS_PLATES)
    assert not {scene.plate for scene in scenes} & FORBIDDEN
    shown, known = {scene.symbol for scene in scenes}, language(seed).symbols
    assert shown == set(known["train"])
    assert not shown & {*known["tuning"], *known["test"]}


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_of_all_scenes_are_single_attributes(seed: int) -> None:
    """Each column of the sign's labels is a function of one attribute, and tells its values apart: none can name a
    pair."""
    of = {"symbol": lambda s: s.symbol, "rim": lambda s: s.plate.rim, "body": lambda s: s.plate.body}
    values: dict[str, set] = {name: set() for name in of}
    for scene in warm_up_scenes(seed):
        labels = tower.labels(scene, language(seed))
        assert labels.shape == (pictures.GRID**2, len(tower.LABELS))
        assert not np.delete(labels, [scene.cell, scene.sign_cell], axis=0).any()
        assert labels[scene.cell].tolist() == [
            language_lib.SHAPES.index(scene.shape) + 1,
            language_lib.COLOURS.index(scene.colour) + 1,
            0,
            0,
            0,
        ]
        assert not labels[scene.sign_cell, :2].any()
        for name, value in sign_labels(scene, seed).items():
            if name in of:
                values[name].add((of[name](scene), value))
    assert list(tower.LABELS) == ["shape", "colour", *of]
    for name, pairs in values.items():
        assert (
            len({value for value, _ in pairs})
            == len({label for _, label in pairs})
            == len(pairs)
            == len(tower.LABELS[name])
        )


def test_a_forbidden_sign_would_be_labelled_like_two_harmless_ones() -> None:
    """Rim and body of a forbidden sign both stand on harmless signs and get their labels: nothing is left to say
    "forbidden"."""
    scene = pictures.draw_scene(random.Random(0), language(0).symbols["train"][0], None)
    harmless = {plate: sign_labels(dataclasses.replace(scene, plate=plate), 0) for plate in pictures.HARMLESS_PLATES}
    for category in language_lib.KNOWN_CATEGORIES:
        plate = pictures.FORBIDDEN_PLATES[category]
        labels = sign_labels(dataclasses.replace(scene, plate=plate), 0)
        same_rim = [found for p, found in harmless.items() if p.rim == plate.rim]
        same_body = [found for p, found in harmless.items() if p.body == plate.body]
        assert same_rim and all(found == labels | {"body": found["body"]} for found in same_rim)
        assert same_body and all(found == labels | {"rim": found["rim"]} for found in same_body)
    assert pictures.FORBIDDEN_PLATES[language_lib.NEW_CATEGORY].rim not in tower.RIMS


def test_two_plates_differ_in_the_columns_of_their_parts_only() -> None:
    for first, second in itertools.combinations((*pictures.HARMLESS_PLATES, *pictures.FORBIDDEN_PLATES.values()), 2):
        if {first.rim, second.rim} <= set(tower.RIMS):
            scene = pictures.draw_scene(random.Random(1), language(0).symbols["train"][3], first)
            a, b = sign_labels(scene, 0), sign_labels(dataclasses.replace(scene, plate=second), 0)
            changed = {name for name in a if a[name] != b[name]}
            assert changed == {part for part in ("rim", "body") if getattr(first, part) != getattr(second, part)}


def test_held_out_symbols_have_no_label() -> None:
    for split in ("tuning", "test"):
        for symbol in language(0).symbols[split]:
            scene = pictures.draw_scene(random.Random(2), symbol, pictures.HARMLESS_PLATES[0])
            with pytest.raises(ValueError, match="not in"):
                tower.labels(scene, language(0))
