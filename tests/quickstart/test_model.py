"""The tiny model: a LLaVA folder that the loader takes, with a tokenizer whose counts agree and a tower that keeps what it sees."""

from __future__ import annotations

import json
from pathlib import Path
import random

import jax.numpy as jnp
import numpy as np
import pytest

from vlguard_jax.checkpoints import load
from vlguard_jax.data import conversations
from vlguard_jax.data import templates
from vlguard_jax.data import tokenizer as tokenizer_lib
from vlguard_jax.data import vlguard
from vlguard_jax.models import llava
from vlguard_jax.quickstart import model
from vlguard_jax.quickstart import world


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quickstart") / "init"
    model.write(path, 0, world.sentences())
    return path


def test_loads_as_llava_and_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    checkpoint = load.load(folder)
    assert checkpoint.layout == "llava"
    assert checkpoint.config == model.sizes(checkpoint.config.text.vocab_size)
    model.write(tmp_path / "again", 0, world.sentences())
    model.write(tmp_path / "other", 1, world.sentences())
    assert load.load(tmp_path / "again").weights_sha256 == checkpoint.weights_sha256 != load.load(tmp_path / "other").weights_sha256
    assert (tmp_path / "again" / "tokenizer.model").read_bytes() == (folder / "tokenizer.model").read_bytes()


def test_no_record_is_voided(folder: Path, tmp_path: Path) -> None:
    """The reference ignores a conversation whose token counts disagree; the vocabulary is made so that none does."""
    world.write(tmp_path / "world", 0, helpful=1, compliant=1)
    tokenizer, template = tokenizer_lib.load_tokenizer(folder), templates.get_template("vicuna_v1")
    records = vlguard.convert(vlguard.read_items(tmp_path / "world", "train"))
    tokens = [conversations.tokenize(record, tokenizer, template, 2048) for record in records]
    assert len(tokens) == sum(world.TRAIN_COUNTS)
    assert not [t.mismatch for t in tokens if t.mismatch]
    assert max(len(t.ids) for t in tokens) < 128


def test_words_of_the_world_are_single_pieces(folder: Path) -> None:
    tokenizer = tokenizer_lib.load_tokenizer(folder)
    words = [*world.COLOURS, *world.SHAPES, *world.FORBIDDEN_THINGS, *world.HARMLESS_THINGS, "sorry"]
    assert {w: len(tokenizer.encode(f"the {w}", add_bos=False)) for w in words} == dict.fromkeys(words, 2)


def test_tower_tells_patches_apart(folder: Path) -> None:
    """A linear read-out of the frozen features finds the forbidden sign's cell in pictures it was not fitted on."""
    checkpoint = load.load(folder)
    rng = random.Random(5)
    scenes = [world.draw_scene(rng, forbidden=i % 2 == 0) for i in range(300)]
    pictures = np.stack([np.asarray(world.paint(s)) for s in scenes])
    functional = llava.Functional(checkpoint.config, "fp32")
    features = np.asarray(functional.encode_images(checkpoint.params, jnp.asarray(pictures)), np.float64)
    present = np.array([[s.forbidden and s.sign_cell == cell for cell in range(9)] for s in scenes], np.float64)
    inputs = np.concatenate([features, np.ones((*features.shape[:2], 1))], -1)
    fit, held_out = slice(0, 200), slice(200, None)
    weights = np.linalg.lstsq(inputs[fit].reshape(-1, inputs.shape[-1]), present[fit].reshape(-1), rcond=None)[0]
    right = ((inputs[held_out] @ weights > 0.5) == (present[held_out] > 0.5)).mean()
    assert right > 0.99


def test_tokenizer_config_says_what_the_reference_reads(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "LlamaTokenizer" and config["legacy"] is False
