"""The shipped taxonomy is VLGuard's (paper, Table 8), and a broken one is refused in one line that names the node."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests import outside
from vlguard_jax import errors
from vlguard_jax.curating import prompt
from vlguard_jax.curating import settings
from vlguard_jax.curating import taxonomy

NINE = {
    "privacy": ("personal data",),
    "risky behavior": ("professional advice", "political", "sexually explicit", "violence"),
    "deception": ("disinformation",),
    "discrimination": ("sex", "race", "other"),
}


def node(name: str, parent: str = "") -> str:
    return f'[[node]]\nname = "{name}"\n' + (f'parent = "{parent}"\n' if parent else "")


def test_the_shipped_one_has_the_papers_nine_subcategories() -> None:
    found = taxonomy.read()
    assert {c: found.below(c) for c in found.categories} == NINE
    assert found.places["legal advice"] == ("risky behavior", "professional advice")
    assert found.places["race"] == ("discrimination", "race") and "privacy" not in found.places


def test_its_names_are_those_of_vlguards_files() -> None:
    folder = outside.folder("VLGUARD_METADATA", "VLGuard's train.json and test.json")
    records = [r for split in ("train", "test") for r in json.loads((folder / f"{split}.json").read_text())]
    found = {(r["harmful_category"], r["harmful_subcategory"]) for r in records if not r["safe"]}
    assert found == {(category, name) for category, names in NINE.items() for name in names}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (node("a") + node("b", "a") + node("b", "a"), "'b' is there twice; give each its own name"),
        (node("a") + node("b", "a") + node("B", "a"), "'B' is there twice; 'b' differs in upper and lower case only"),
        (node("a", "b") + node("b", "a"), "a circle of parents: a -> b -> a; give one of them another parent"),
        (node("a", "a"), "a circle of parents: a -> a"),
        (node("top") + node("x", "z") + node("y", "x") + node("z", "y"), "a circle of parents: x -> z -> y -> x"),
        (node("a") + node("b", "a") + node("c", "b") + node("d", "c"), "'d' is 4 levels deep"),
        (node("a") + node("b", "aa"), "the parent 'aa' of 'b' is not there"),
        (node("a"), "the category 'a' has no subcategory"),
        (node("a") + node(" b", "a"), "node 2: name=' b' must be a text of one line"),
        (node("a")[:-4], "not a TOML file: "),
        ("", "must hold tables [[node]]"),
        ("node = 3", "must hold tables [[node]]"),
        (node("a") + "weight = 2\n", "node 1: weight is not a setting"),
        ('[[node]]\nparent = "a"\n', "node 1: name is missing"),
        ("\x00", "not a TOML file: "),
        ("".join(node(str(i)) for i in range(1001)), "1,001 names, at most 1,000 are read"),
    ],
)
def test_a_broken_one_is_refused(tmp_path: pathlib.Path, text: str, told: str) -> None:
    path = tmp_path / "taxonomy.toml"
    path.write_text(text)
    with pytest.raises(errors.UserError) as caught:
        taxonomy.read(str(path))
    assert str(caught.value).startswith(f"{path}: ") and told in str(caught.value) and "\n" not in str(caught.value)


def test_every_truncation_is_refused_or_a_smaller_taxonomy(tmp_path: pathlib.Path) -> None:
    whole, path = taxonomy.SHIPPED.read_bytes(), tmp_path / "cut.toml"
    read = 0
    for n in range(0, len(whole), 97):
        path.write_bytes(whole[:n])
        try:
            found = taxonomy.read(str(path))
        except errors.UserError:
            continue
        read += 1
        assert set(found.categories) <= set(NINE)
    assert read < 10


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("$taxonomy $refusals", "has no $language"),
        ("$taxonomy $refusals $language $tone", "$tone is unknown"),
        ("$taxonomy $refusals $language costs 5 $", "a $ that begins no name; write $$"),
    ],
)
def test_a_broken_prompt_is_refused(tmp_path: pathlib.Path, text: str, told: str) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text(text)
    with pytest.raises(errors.UserError, match=r"prompt\.txt") as caught:
        prompt.make(settings.AskSettings(prompt=str(path)), taxonomy.read())
    assert told in str(caught.value)
