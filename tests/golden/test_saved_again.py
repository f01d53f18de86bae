"""A llava-hf folder that today's transformers has saved again: no tokenizer.model, processor and tokenizer in new
files."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import transformers

from tests.checkpoints import tiny
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib


@pytest.fixture(scope="module")
def again(golden: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder, source = tmp_path_factory.mktemp("again"), golden / "llava-hf-mha"
    transformers.LlavaForConditionalGeneration.from_pretrained(source).save_pretrained(folder)
    transformers.AutoProcessor.from_pretrained(source).save_pretrained(folder)
    assert not (folder / "tokenizer.model").exists() and (folder / "tokenizer.json").exists()
    return folder


def test_the_same_model(golden: pathlib.Path, again: pathlib.Path, tmp_path: pathlib.Path) -> None:
    before, after = load.load(golden / "llava-hf-mha"), load.load(again)
    assert after.weights_sha256 == before.weights_sha256 and after.config == before.config
    save.save_llava(after, tmp_path / "llava")
    tiny.assert_same_model(load.load(tmp_path / "llava"), before)
    assert (tmp_path / "llava" / "tokenizer.model").is_file()


@pytest.mark.parametrize("where", ["again", "llava"])
def test_the_same_ids(golden: pathlib.Path, again: pathlib.Path, tmp_path: pathlib.Path, where: str) -> None:
    """Of every recorded question, and of every recorded answer's text."""
    if where == "llava":
        save.save_llava(load.load(again), tmp_path / "llava")
        again = tmp_path / "llava"
    words, before = tokenizer_lib.load_tokenizer(again), tokenizer_lib.load_tokenizer(golden / "tokenizer")
    assert not words.legacy
    for item in json.loads((golden / "eval_prompts.json").read_text())["items"]:
        for name, expected in item["modes"].items():
            ids = conversations.tokenize_prompt(item["question"], 1, words, templates.get_template(name))
            np.testing.assert_array_equal(ids, expected["nonlegacy_ids"], err_msg=item["id"])
    for item in json.loads((golden / "generations-mha.json").read_text())["items"]:
        assert words.decode(item["new_ids"]) == before.decode(item["new_ids"])
