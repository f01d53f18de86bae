"""LLaVA-NeXT's templates with the vocabularies of Mistral 7B and Llama 3: the ids that the models know."""

from __future__ import annotations

import pathlib

import pytest
import transformers

from tests.data import stand
from tests.parity import assets
from tests.parity import vocabularies
from vlguard_jax import types
from vlguard_jax.families import table
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

pytestmark = pytest.mark.parity

ANSWERS = ("A radar chart.", "No.", "I'm sorry, but I can't.\n\n1. caf\u00e9\n2. \u65e5\u672c", "12,345 people  there")
QUESTION = "What is shown in this image?"


def of_a_preset(name: str, tokenizer: tokenizer_lib.Tokenizer) -> conversations.Template:
    return choice.template("auto", jinja_template.DATE, table.PRESETS[name], tokenizer)


def learnt(tokenizer: tokenizer_lib.Tokenizer, template: conversations.Template) -> str:
    """Of a conversation about a picture with an answer after the other."""
    texts = [text for answer in ANSWERS for text in ("Why?", answer)]
    record = stand.record(f"<image>\n{QUESTION}", *texts[1:], images=("a.png",))
    tokens = conversations.tokenize(record, tokenizer, template, 2048)
    assert tokens.mismatch is None
    return tokenizer.decode(tokens.labels[tokens.labels != types.IGNORE_LABEL].tolist(), skip_special=False)


def test_mistral(tmp_path: pathlib.Path) -> None:
    model = assets.member("mistral-common", "mistral_common/data/tokenizer.model.v1")
    (tmp_path / "tokenizer.model").write_bytes(model.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": true}')
    tokenizer = tokenizer_lib.load_tokenizer(tmp_path)
    template = of_a_preset("llava-v1.6-mistral-7b", tokenizer)
    ids = conversations.tokenize_prompt(QUESTION, 1, tokenizer, template).tolist()
    begin, end = [1, 733, 16289, 28793, 28705, types.IMAGE_TOKEN, 28705, 13], [733, 28748, 16289, 28793]
    assert ids == [*begin, 3195, 349, 4894, 297, 456, 3469, 28804, *end]
    assert learnt(tokenizer, template) == "".join(f" {answer} </s>" for answer in ANSWERS)


def test_llama_3(tmp_path: pathlib.Path) -> None:
    folder = vocabularies.write_llama_bpe(tmp_path)
    tokenizer = tokenizer_lib.load_tokenizer(folder)
    template = of_a_preset("llama3-llava-next-8b", tokenizer)
    assert isinstance(template, jinja_template.JinjaTemplate)
    ids = conversations.tokenize_prompt(QUESTION, 1, tokenizer, template).tolist()
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    before, after = template.prompt(QUESTION, 1).split("<image>")
    own = [theirs(text, add_special_tokens=False).input_ids for text in (before, after)]
    assert ids == [*own[0], types.IMAGE_TOKEN, *own[1]]
    assert ids[:5] == [128000, 128006, 9125, 128007, 271] and ids[-5:] == [128009, 128006, 78191, 128007, 271]
    assert learnt(tokenizer, template) == "".join(f"{answer}<|eot_id|>" for answer in ANSWERS)
