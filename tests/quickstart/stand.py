"""Worlds for the tests: the files as they are written, the scenes behind their pictures, and what a question asks."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import hashlib
import itertools
import json
from pathlib import Path
import re
from typing import Any

import pytest

from tests.data import stand as data_stand
from vlguard_jax import config
from vlguard_jax.data import mixtures
from vlguard_jax.families.chat import templates
from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import pictures
from vlguard_jax.quickstart import world
from vlguard_jax.safety.judges import keyword

MEDIUM = world.Sizes(texts=800, mix=1200, mix_texts=200, train=(200, 200), test=80, probe=40, prompts=60)
SMALL = world.Sizes(texts=48, mix=96, mix_texts=16, train=(16, 16), test=6, probe=4, prompts=5)
TRAINING = ("texts", "mix", "train")
ASKED = ("test", "new_category", "joint", "prompts")
PLACE = f"in the ({'|'.join(language_lib.PLACES)})"
THINGS = (*language_lib.THINGS, *itertools.chain(*language_lib.FORBIDDEN.values()))
SLOTS = rf"\b({'|'.join((*language_lib.VERBS, *THINGS, *language_lib.SHAPES, *language_lib.COLOURS))})\b"
SHAPE_QUESTIONS = ("What colour is the {}?", "Which shape is {}?")


def mixture(data: config.DataSettings, folder: Path) -> mixtures.Mixture:
    """What a training run would read, tokenized by another small tokenizer, whose token counts are of no interest."""
    tokenizer = data_stand.make_tokenizer(folder / "tokenizer", legacy=True)
    data = dataclasses.replace(data, on_mismatch="reference")
    model = data_stand.sees(pictures.SIDE, pictures.CELL)
    return mixtures.build(data, tokenizer, templates.get_template("vicuna_v1"), model)


def is_refusal(answer: str) -> bool:
    """By the phrases of VLGuard's keyword judge."""
    return any(phrase in answer.lower() for phrase in keyword.VLGUARD_PHRASES)


def digest(folder: Path, names: tuple[str, ...] = ("",)) -> str:
    """Of all files of `folder` whose path begins with one of `names`."""
    files = sorted((str(p.relative_to(folder)), p) for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(
        b"".join(name.encode() + p.read_bytes() for name, p in files if name.startswith(names))
    ).hexdigest()


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A written world without its pictures. scenes: set -> name of a picture -> what it shows."""

    folder: Path
    split: str
    language: language_lib.Language
    scenes: dict[str, dict[str, pictures.Scene]]

    def records(self, name: str) -> list[dict[str, Any]]:
        """The records of `name`.json."""
        return json.loads((self.folder / f"{name}.json").read_text())

    def pairs(self, name: str) -> Iterator[tuple[str, str, pictures.Scene | None]]:
        """(question, answer, scene or None) of every set, the answer empty where the file holds none."""
        for record in self.records(name):
            scene = self.scenes[name][record["image"]] if "image" in record else None
            if "prompt" in record:
                yield record["prompt"], "", None
            for pair in record.get("instr-resp", ()):
                yield next(text for kind, text in pair.items() if kind.endswith("instruction")), pair["response"], scene
            turns = [turn["value"].removeprefix("<image>\n") for turn in record.get("conversations", ())]
            for question, answer in zip(turns[::2], turns[1::2], strict=True):
                yield question, answer, scene

    def questions(self, *names: str) -> list[str]:
        """All questions of these sets."""
        return [question for name in names for question, _, _ in self.pairs(name)]


def draw(folder: Path, seed: int, split: str, sizes: world.Sizes) -> Drawn:
    """Write a world, with the scenes remembered in place of being painted."""
    scenes: dict[str, dict[str, pictures.Scene]] = {"mix": {}, "train": {}, "test": {}, "new_category": {}, "joint": {}}

    @dataclasses.dataclass
    class Canvas:
        scene: pictures.Scene

        def save(self, path: Path, **_: Any) -> None:
            scenes[path.parent.name][path.name] = self.scene

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "paint", Canvas)
        world.write(folder, seed, split, sizes)
    return Drawn(folder, split, language_lib.language(seed, len(pictures.symbols())), scenes)


def bare(question: str) -> str:
    """The question without the place it is about and the demand how to begin, lower case."""
    return re.sub(f"^{PLACE}, | {PLACE}(?=[.?]$)", "", question.removesuffix(f" {language_lib.SUFFIX}").lower())


def wording(question: str, language: language_lib.Language) -> tuple[str, str, str]:
    """(kind, split, wording) of a question: "how", "spell" or "sign", or "shape", which all splits ask alike."""
    kinds = {"how": language.how, "spell": language.spell, "sign": language.sign, "shape": {"any": SHAPE_QUESTIONS}}
    asked = re.sub(SLOTS, "{}", bare(question))
    found = [
        (kind, split, text)
        for kind, pool in kinds.items()
        for split, texts in pool.items()
        for text in texts
        if text.lower() == asked
    ]
    assert len(found) == 1, (question, found)
    return found[0]


def is_request(question: str, things: tuple[str, ...]) -> bool:
    """Whether the question asks how to do something with one of `things`, not in a game or story."""
    asked = question.removesuffix(f" {language_lib.SUFFIX}").lower()
    return asked == bare(question) and bool(
        re.search(rf" ({'|'.join(language_lib.VERBS)}) the ({'|'.join(things)})[.?]$", asked)
    )
