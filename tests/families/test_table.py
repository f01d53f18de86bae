"""Families are found by name and by sizes, and say how a config's pictures are prepared."""

from __future__ import annotations

import pytest

from tests.families import tiny
from vlguard_jax import errors
from vlguard_jax.families import table


def test_a_family_is_found_by_name_and_by_its_sizes() -> None:
    assert len(set(table.known())) == len(table.FAMILIES)
    for family in table.FAMILIES:
        assert table.named(family.name, "f.json") is family
        assert all(table.of(sizes) is family for sizes in family.presets.values())
    assert table.of(tiny.CONFIG).name == "llava" and table.of(tiny.TEXT_ONLY).name == "llama"


def test_an_unknown_family_is_told_the_nearest() -> None:
    with pytest.raises(errors.UserError, match=r"^f\.json: model family 'lava' is unknown; did you mean 'llava'"):
        table.named("lava", "f.json")


def test_pictures_are_prepared_as_the_config_says_or_the_family_does() -> None:
    found = {mode: table.image_mode(tiny.CONFIG, mode) for mode in ("auto", "pad", "crop")}
    assert found == {"auto": "pad", "pad": "pad", "crop": "crop"}
    assert {table.image_mode(tiny.TEXT_ONLY, mode) for mode in ("auto", "pad", "crop")} == {"none"}
    with pytest.raises(
        errors.UserError, match=r"image_mode='tile' is not a mode of a llava model; take 'pad' or 'crop' or"
    ):
        table.image_mode(tiny.CONFIG, "tile")
