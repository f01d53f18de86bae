"""The templates of LLaVA-NeXT's other decoders: LLaVA's own words, and where llava-hf's are others."""

from __future__ import annotations

import dataclasses
import pathlib
import random

import pytest
import tokenizers
import transformers

from tests.data import stand
from tests.families.chat import chats
from tests.families.chat import json_folders
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import built_in
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.families.llama import config as llama_config

LLAMA_3_TOKENS = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
MISTRAL = templates.get_template("mistral_instruct")
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user"
    " provides, and assist the user with a variety of tasks using natural language."
)
# Of Meta-Llama-3-8B-Instruct: the turns one after another, the first behind the begin token.
LLAMA_3 = (
    "{% for message in messages %}{{ (bos_token if loop.first else '') + '<|start_header_id|>' + message['role']"
    " + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# chat_template.json of llava-hf/llava-v1.6-mistral-7b-hf and llava-hf/llama3-llava-next-8b-hf, without their comments.
_PICTURES = "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
_TEXTS = "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
HF_MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    + _PICTURES
    + "{{ '<image>\n' }}{% endfor %}"
    + _TEXTS
    + "{{ content['text'] }}{% endfor %}{{ ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'][0]['text'] + '</s> ' }}{% endif %}{% endfor %}"
)
HF_LLAMA_3 = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    + _PICTURES
    + "{{ '<image>' }}{% endfor %}"
    + _TEXTS
    + "{{ '\n' + content['text'] + '<|eot_id|>' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def llama_3(**fields) -> jinja_template.JinjaTemplate:
    text = built_in.TEMPLATES["llava_llama_3"].text
    return jinja_template.JinjaTemplate("llava_llama_3", text, (("bos_token", "<|begin_of_text|>"),), **fields)


def rendered(template: str, messages: list[dict[str, object]], ask: bool = False) -> str:
    """By transformers."""
    texts, _ = transformers.utils.chat_template_utils.render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=ask, bos_token="<|begin_of_text|>"
    )
    return texts[0]


def asked(question: str, answer: str = "") -> list[dict[str, object]]:
    """As a processor takes it: a picture and a question, and the answer if there is one."""
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    return [user] + ([{"role": "assistant", "content": [{"type": "text", "text": answer}]}] if answer else [])


def test_mistral_renders_as_llava() -> None:
    """conversation.py, style LLAMA_2 with neither system text nor first separator."""
    assert MISTRAL.render(["<image>\nWhy?", "No.", "How?", "So."]) == (
        "[INST] <image>\nWhy? [/INST] No. </s>[INST] How? [/INST] So. </s>"
    )
    assert MISTRAL.render(["Why?", "", "How?", None]) == "[INST] Why? [/INST][INST] How? [/INST]"
    assert MISTRAL.prompt("Why?", 2) == "[INST] <image>\n<image>\nWhy? [/INST]"
    with pytest.raises(errors.UserError, match="first question is empty, which template 'mistral_instruct' does not"):
        MISTRAL.render(["", "No."])


def test_the_answers_are_learnt_as_llava_s(tmp_path: pathlib.Path) -> None:
    """train.py, preprocess_llama_2: each answer with the space in front of it, a space and the end token."""
    tokenizer = stand.make_tokenizer(tmp_path, legacy=True)  # as Mistral's own
    record = stand.record("<image>What is this?", "A flyer.", "fox", "dog.", images=("a.png",))
    tokens = conversations.tokenize(record, tokenizer, MISTRAL, 2048)
    after = "\nWhat is this? [/INST] A flyer. </s>[INST] fox [/INST] dog. </s>"
    before = tokenizer.encode("[INST] ")
    assert tokens.ids.tolist() == [*before, types.IMAGE_TOKEN, *tokenizer.encode(after, add_bos=False)]
    learnt = tokens.labels != types.IGNORE_LABEL
    assert tokens.mismatch is None and (tokens.labels == tokens.ids)[learnt].all()
    parts = [tokenizer.decode([int(i)], skip_special=False) for i in tokens.labels[learnt]]
    assert "".join(parts).replace(" ", "") == "Aflyer.</s>dog.</s>" and parts.count("</s>") == 2
    whole = tokenizer.decode(tokens.labels[learnt].tolist(), skip_special=False)
    assert whole == " A flyer. </s> dog. </s>"
    empty = stand.record("", "dog.")
    with pytest.raises(errors.UserError, match=r"^r: the first question is empty"):
        conversations.tokenize(empty, tokenizer, MISTRAL, 2048)


def test_mistral_asks_as_llava_hf() -> None:
    """A further round is not the same text there: its space stands behind the end token."""
    assert MISTRAL.prompt("Why?", 1) == rendered(HF_MISTRAL, asked("Why?"))
    ours = MISTRAL.render(["<image>\nWhy?", "No."])
    assert rendered(HF_MISTRAL, asked("Why?", "No.")) == ours.removesuffix(" </s>") + "</s> "


def test_llama_3_renders_as_llava() -> None:
    """conversation.py hands the system text and the turns to the chat template of Llama-3-Instruct."""
    form, rng = chats.FORMATS["llama3"], random.Random(3)
    for pictures in (False, True):
        template = llama_3(pictures=pictures)
        for _ in range(50):
            turns = chats.conversation(rng, form)
            expected = turns if turns[0].role == "system" else [types.Turn("system", SYSTEM), *turns]
            assert template.render(turns, 0).text == rendered(LLAMA_3, chats.messages(expected))
        question = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "<image>\n" * pictures + "Why?"}]
        assert template.prompt("Why?", int(pictures)) == rendered(LLAMA_3, question, ask=True)
    answers = llama_3(pictures=True).render([types.Turn("human", "<image>\nWhy?"), types.Turn("gpt", " No. ")], 1)
    assert [answers.text[start:end] for start, end in answers.answers] == ["No."]


def test_llama_3_asks_as_llava_hf_but_for_the_system_text() -> None:
    ours = llama_3(pictures=True).prompt("Why?", 1)
    theirs = rendered(HF_LLAMA_3, asked("Why?"), ask=True)  # the tokenizer puts the begin token in front
    system = f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>"
    assert ours == system + theirs


def sized(name: str, tokenizer: object, setting: str = "auto") -> conversations.Template:
    return choice.template(setting, jinja_template.DATE, table.PRESETS[name], tokenizer)


def byte_level(folder: pathlib.Path, *added: str) -> tokenizer_lib.Tokenizer:
    """A tokenizer of Llama 3's kind, whose end token is not the one that ends a turn."""
    tokens = tuple(tokenizers.AddedToken(text, special=True, normalized=False) for text in added)
    return tokenizer_lib.read(json_folders.write(folder, "llama3", tokens, bos_token=json_folders.BEGIN))


def test_each_decoder_has_its_own_template(tmp_path: pathlib.Path) -> None:
    pieces, llama = stand.make_tokenizer(tmp_path / "a"), byte_level(tmp_path / "b", *LLAMA_3_TOKENS)
    found = {name: sized(name, llama if "llama3" in name else pieces) for name in table.PRESETS}
    named = {name: one.name for name, one in found.items() if one.name != "vicuna_v1"}
    assert named == {"llava-v1.6-mistral-7b": "mistral_instruct", "llama3-llava-next-8b": "llava_llama_3"}
    assert set(found) - set(named) == {name for name in table.PRESETS if "vicuna" in name or "v1.5" in name}
    alone = llama_config.LlamaConfig(configs.MISTRAL_7B)  # a language model whose folder has no template
    assert choice.template("auto", jinja_template.DATE, alone, pieces).name == "mistral_instruct"
    chosen = found["llama3-llava-next-8b"]
    assert isinstance(chosen, jinja_template.JinjaTemplate) and chosen.pictures
    assert choice.names(table.PRESETS["llama3-llava-next-8b"], llama) == ("llava_llama_3",)


def test_the_answers_of_llama_3_are_learnt(tmp_path: pathlib.Path) -> None:
    tokenizer = byte_level(tmp_path, *LLAMA_3_TOKENS)
    template = sized("llama3-llava-next-8b", tokenizer)
    record = stand.record("What is this?", " A flyer.\n", "fox", "dog.", images=("a.png",))
    record = dataclasses.replace(record, turns=(types.Turn("human", "What is this?\n<image>"), *record.turns[1:]))
    tokens = conversations.tokenize(record, tokenizer, template, 2048)
    learnt = tokens.labels != types.IGNORE_LABEL
    assert tokenizer.decode(tokens.ids[learnt].tolist(), skip_special=False) == "A flyer.<|eot_id|>dog.<|eot_id|>"
    assert (tokens.ids == types.IMAGE_TOKEN).sum() == 1 and (tokens.ids == tokenizer.bos_id).sum() == 1
    prompt = conversations.tokenize_prompt("What is this?", 1, tokenizer, template)
    assert tokens.ids[: len(prompt)].tolist() == prompt.tolist()


def test_a_template_for_another_tokenizer_is_refused(tmp_path: pathlib.Path) -> None:
    pieces, chatml = stand.make_tokenizer(tmp_path / "a"), byte_level(tmp_path / "b", "<|im_end|>")
    with pytest.raises(errors.UserError, match=r"llava_llama_3 ends a turn with <\|eot_id\|>, which is no token of"):
        sized("llava-v1.6-vicuna-7b", pieces, "llava_llama_3")
    with pytest.raises(errors.UserError, match="mistral_instruct is made for tokenizers of the Llama-2 family"):
        sized("llava-v1.6-mistral-7b", chatml, "mistral_instruct")
    with pytest.raises(errors.UserError, match="has no chat template"):
        sized("llama3-llava-next-8b", chatml)
