"""The tiny model: a LLaVA folder that the loader takes, a tokenizer whose counts agree, a tower that has learned what
it was shown."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path
import random
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.quickstart import stand
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.data import batches
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.data import vlguard
from vlguard_jax.families import functional
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.quickstart import arms
from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import model
from vlguard_jax.quickstart import pictures
from vlguard_jax.quickstart import tower
from vlguard_jax.quickstart import world

SEED = 1000
COUNT, UPDATES = 600, 120
LANGUAGE = language_lib.language(SEED, len(pictures.symbols()))


@dataclasses.dataclass
class Made:
    """The model's folder, what was painted while it was made, and the tower and share of right labels that the warm-up
    returned."""

    folder: Path
    painted: list[pictures.Scene]
    warm: dict[str, Any]
    right: float


def make(folder: Path, seed: int) -> Made:
    """Write a model after a short warm-up."""
    painted: list[pictures.Scene] = []
    returned: list[tuple[dict[str, Any], float]] = []
    paint, warm_up = pictures.paint, functools.partial(tower.warm_up, count=COUNT, updates=UPDATES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "paint", lambda scene: (painted.append(scene), paint(scene))[1])
        patch.setattr(tower, "warm_up", lambda *given: (returned.append(warm_up(*given)), returned[-1])[1])
        model.write(folder, language_lib.language(seed, len(pictures.symbols())))
    return Made(folder, painted, *returned[-1])


@pytest.fixture(scope="session")  # pytest orders tests by the seed of `drawn`, across this module's bounds
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model of SEED."""
    return make(tmp_path_factory.mktemp("quickstart") / "init", SEED)


def test_loads_as_llava_with_the_warmed_up_tower(made: Made) -> None:
    checkpoint = load.load(made.folder)
    assert checkpoint.layout == "llava"
    assert checkpoint.config == model.sizes(checkpoint.config.text.vocab_size)
    loaded, warm = trees.flatten(checkpoint.params["vision"]), trees.flatten(made.warm)
    assert loaded.keys() == warm.keys() and all(np.array_equal(loaded[path], warm[path]) for path in warm)


@pytest.mark.more
def test_same_seed_same_weights(made: Made, tmp_path: Path) -> None:
    again, other = make(tmp_path / "again", SEED), make(tmp_path / "other", SEED + 1)
    hashes = [load.load(m.folder).weights_sha256 for m in (made, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert stand.digest(made.folder) == stand.digest(again.folder)


def test_warm_up_paints_its_scenes_and_learns_from_them(made: Made) -> None:
    """Nothing else is shown to it; after a short one more is named than "nothing is here" everywhere."""
    assert made.painted == tower.scenes(LANGUAGE, COUNT)
    empty = 1 - 2 / pictures.GRID**2
    print(f"named right: {made.right:.3f}, all taken for empty: {empty:.3f}")
    assert made.right > empty + 0.02


def test_tower_shows_where_the_sign_is(made: Made) -> None:
    """A linear read-out of what the language model is given finds the sign's cell, also with signs that the warm-up
    never saw."""
    checkpoint = load.load(made.folder)
    rng = random.Random(5)
    plates = (*pictures.HARMLESS_PLATES, *pictures.FORBIDDEN_PLATES.values())
    symbols = (*LANGUAGE.symbols["train"], *LANGUAGE.symbols["test"])
    scenes = [pictures.draw_scene(rng, rng.choice(symbols), rng.choice(plates)) for _ in range(300)]
    images = np.stack([np.asarray(pictures.paint(scene)) for scene in scenes])
    seen = functional.Model(checkpoint.config, "fp32").features(checkpoint.params, {"images": jnp.asarray(images)})
    features = np.asarray(seen, np.float64).reshape(len(scenes), pictures.GRID**2, -1)
    present = np.array([[scene.sign_cell == cell for cell in range(pictures.GRID**2)] for scene in scenes], np.float64)
    inputs = np.concatenate([features, np.ones((*features.shape[:2], 1))], -1)
    fit, kept = slice(0, 200), slice(200, None)
    weights = np.linalg.lstsq(inputs[fit].reshape(-1, inputs.shape[-1]), present[fit].reshape(-1), rcond=None)[0]
    right = (np.argmax(inputs[kept] @ weights, -1) == np.argmax(present[kept], -1)).mean()
    print(f"sign's cell found: {right:.2f}")
    assert right > 0.9


# The tokenizer.


def test_every_conversation_fits_its_row_and_none_is_voided(made: Made, drawn: stand.Drawn) -> None:
    """The reference ignores a conversation whose token counts disagree; and one longer than the row would compile a
    second program."""
    tokenizer, template = tokenizer_lib.load_tokenizer(made.folder), templates.get_template("vicuna_v1")
    patches = pictures.GRID**2
    longest = {}
    for name in stand.TRAINING:
        path = drawn.folder / f"{name}.json"
        read = list(
            vlguard.convert(vlguard.read_items(path, "train"))
            if name == "train"
            else json_records.read(path, records.parse_llava)
        )
        tokens = [conversations.tokenize(record, tokenizer, template, 256) for record in read]
        assert not [t.mismatch for t in tokens if t.mismatch]
        samples = [
            batches.expand(t, [patches] * len(r.images), 256, tokenizer.pad_id)
            for t, r in zip(tokens, read, strict=True)
        ]
        longest[name] = max(len(sample.tokens) for sample in samples)
    print(longest)
    assert longest["texts"] <= arms.TEXT_ROW and max(longest["mix"], longest["train"]) <= arms.ROW


def test_any_conversation_that_can_be_drawn_fits(made: Made, drawn: stand.Drawn) -> None:
    """The world counts words and marks, and stops at MOST_TOKENS; what the tokenizer adds to that is less than the row
    leaves."""
    tokenizer, template = tokenizer_lib.load_tokenizer(made.folder), templates.get_template("vicuna_v1")
    added = []
    for record in json_records.read(drawn.folder / "mix.json", records.parse_llava):
        if record.images:
            text = " ".join(turn.text for turn in record.turns).replace(templates.IMAGE_TAG, "")
            tokens = len(conversations.tokenize(record, tokenizer, template, 256).ids) + pictures.GRID**2 - 1
            added.append(tokens - len(re.findall(r"\w+|[^\w\s]", text)))
    print(f"added: {min(added)} to {max(added)}")
    assert max(added) <= arms.ROW - world.MOST_TOKENS


def test_words_of_the_world_are_single_pieces(made: Made) -> None:
    tokenizer = tokenizer_lib.load_tokenizer(made.folder)
    things = [*language_lib.THINGS, *itertools.chain(*language_lib.FORBIDDEN.values())]
    words = [
        *things,
        *language_lib.TOOLS,
        *language_lib.SHAPES,
        *language_lib.COLOURS,
        *language_lib.VERBS,
        language_lib.MARK,
        "sorry",
    ]
    assert {w: len(tokenizer.encode(f"the {w}", add_bos=False)) for w in words} == dict.fromkeys(words, 2)


def test_system_sentence_is_one_token(made: Made) -> None:
    tokenizer, template = tokenizer_lib.load_tokenizer(made.folder), templates.get_template("vicuna_v1")
    ids = tokenizer.encode(template.prompt("Hi?", 0))
    assert ids[1] == model.vocabulary_size(made.folder) - 1 and template.system in tokenizer.decode(ids)


def test_tokenizer_config_says_what_the_reference_reads(made: Made) -> None:
    config = json.loads((made.folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "LlamaTokenizer" and config["legacy"] is False
