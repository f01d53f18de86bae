"""A llava-hf folder asked with a chat template of its own: the prompts of transformers' processor, and its ids."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest
import transformers

from tests.families.chat import test_choice
from vlguard_jax import types
from vlguard_jax.checkpoints import outline
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import tokenizer as tokenizer_lib


@pytest.mark.parametrize("legacy", [False, True])
def test_prompts_and_ids_are_those_of_the_processor(golden: pathlib.Path, tmp_path: pathlib.Path, legacy: bool) -> None:
    """Of the tokenizer's class that the folder names: AutoTokenizer takes another one today, without the first space
    piece."""
    for path in (golden / "llava-hf-mha").iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": test_choice.PICTURED}))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"legacy": legacy}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    shutil.copy(golden / "llava-hf-mha" / "model.safetensors.index.json", tmp_path)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    named = getattr(transformers, settings["tokenizer_class"]).from_pretrained(tmp_path)
    words = tokenizer_lib.load_tokenizer(tmp_path)
    template = choice.template("folder", jinja_template.DATE, outline.read(golden / "llava-hf-mha").config, words)
    items = json.loads((golden / "eval_prompts.json").read_text())["items"]
    assert items
    for item in items:
        parts = [{"type": "image"}, {"type": "text", "text": item["question"]}]
        asked = [{"role": "user", "content": parts}]
        prompt = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert template.prompt(item["question"], 1) == prompt
        image = named.convert_tokens_to_ids("<image>")
        expected = [types.IMAGE_TOKEN if id_ == image else id_ for id_ in named(prompt)["input_ids"]]
        assert conversations.tokenize_prompt(item["question"], 1, words, template).tolist() == expected
