"""Tokens and labels under chat templates in Jinja: the answers and their end tokens are learnt, nothing else."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import tokenizers
import transformers

from tests.data import stand
from tests.families.chat import chats
from tests.families.chat import fast
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import spans
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

KINDS = {"chatml": "byte_level", "llama3": "byte_level", "mistral": "fallback", "gemma": "fallback"}
HEADERS = {"chatml": "<|im_start|>{}\n", "llama3": "<|start_header_id|>{}<|end_header_id|>\n\n"}
HEADERS["gemma"] = "<start_of_turn>{}\n"
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}


def written(name: str, turns: list[types.Turn]) -> list[tuple[str, bool]]:
    """The formats written by hand: (text, whether it is learnt)."""
    form = chats.FORMATS[name]
    strip = str.strip if form.strips else str
    if name == "mistral":
        parts = [("<s>", False)]
        for turn in turns:
            learnt = turn.role == "gpt"
            parts.append((f"{turn.text}</s>" if learnt else f"[INST] {turn.text} [/INST]", learnt))
        return parts
    parts = [("<bos>", False)] if name == "gemma" else []
    if name == "llama3":
        first = turns[0].text.strip() if turns[0].role == "system" else ""
        turns = turns[turns[0].role == "system" :]
        header = HEADERS[name].format("system")
        parts = [(f"<|begin_of_text|>{header}Today Date: 26 Jul 2024\n\n{first}<|eot_id|>", False)]
    for turn in turns:
        role = "model" if name == "gemma" and turn.role == "gpt" else ROLES[turn.role]
        learnt = turn.role == "gpt"
        parts.append((HEADERS[name].format(role), False))
        parts.append((f"{strip(turn.text)}{form.end}", learnt))
        parts.append(("" if name == "llama3" else "\n", False))
    return parts


@pytest.fixture(scope="module", params=chats.FORMATS)
def read(request, tmp_path_factory):
    """(name, transformers' tokenizer, ours, template) of a format."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    theirs = fast.save(folder, chats.FORMATS[name], KINDS[name])
    ours = tokenizer_lib.load_tokenizer(folder)
    form = chats.FORMATS[name]
    return (
        name,
        theirs,
        ours,
        jinja_template.JinjaTemplate("folder", form.template, tuple(sorted(ours.special.items()))),
    )


def test_the_answers_and_their_end_tokens_are_learnt_and_nothing_else(read):
    name, theirs, ours, template = read
    form, rng = chats.FORMATS[name], random.Random(0)
    crossed = 0
    for i in range(200):
        turns = chats.conversation(rng, form)
        found = conversations.tokenize(types.Record(str(i), tuple(turns)), ours, template, 10**6)
        parts = written(name, turns)
        text = "".join(part for part, _ in parts)
        encoded = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert found.ids.tolist() == encoded["input_ids"]
        assert encoded["input_ids"] == theirs.apply_chat_template(
            chats.messages(turns), return_dict=False, date_string="26 Jul 2024"
        )
        learnt = np.cumsum([False, *itertools.chain.from_iterable([yes] * len(part) for part, yes in parts)])
        starts, ends = np.transpose(encoded["offset_mapping"])
        characters = learnt[ends] - learnt[starts]
        expected = np.where(characters == ends - starts, found.ids, types.IGNORE_LABEL)
        assert found.labels.tolist() == expected.tolist(), text
        assert found.noted.crossing == ((characters > 0) & (characters < ends - starts)).sum()
        special = (*form.named.values(), *form.others)
        for count, mine in ((found.noted.asked, False), (found.noted.answered, True)):
            texts = [turn.text for turn in turns if (turn.role == "gpt") is mine]
            assert count == any(one in text for one in special for text in texts)
        crossed += found.noted.crossing
    print(f"{name}: {crossed} tokens across borders")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tokenizer_of_the_llama_2_family_learns_the_same_characters(tmp_path, legacy):
    """Its space pieces that stand for no character are learnt in front of an answer's first character."""
    words = stand.make_tokenizer(tmp_path, legacy=legacy)
    form, rng = chats.FORMATS["mistral"], random.Random(3)
    template = jinja_template.JinjaTemplate("folder", form.template, tuple(sorted(words.special.items())))
    for i in range(100):
        turns = chats.conversation(rng, form)
        found = conversations.tokenize(types.Record(str(i), tuple(turns)), words, template, 10**6)
        parts = written("mistral", turns)
        ids, offsets = words.encode_with_offsets("".join(text for text, _ in parts))
        assert found.ids.tolist() == ids == words.encode("".join(text for text, _ in parts), add_bos=False)
        learnt = [*itertools.chain.from_iterable([yes] * len(text) for text, yes in parts), False]
        inside = [all(learnt[first:end]) if end > first else learnt[first] for first, end in offsets]
        expected = [id_ if yes else types.IGNORE_LABEL for id_, yes in zip(ids, inside, strict=True)]
        assert found.labels.tolist() == expected


def test_an_end_token_that_takes_in_white_space_behind_it_is_learnt(tmp_path):
    # As Phi-3's, whose template writes a line break there.
    named, others = {"eos_token": "<|im_end|>"}, ("<|im_start|>",)
    native = fast.byte_level([*others])
    native.add_special_tokens([tokenizers.AddedToken("<|im_end|>", rstrip=True, normalized=False, special=True)])
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=native, chat_template=chats.CHATML, **named)
    theirs.save_pretrained(tmp_path)
    ours = tokenizer_lib.load_tokenizer(tmp_path)
    template = jinja_template.JinjaTemplate("folder", chats.CHATML, tuple(named.items()))
    turns = [
        types.Turn(role, text) for role, text in zip(("human", "gpt") * 2, ("Hi", "A cat. ", "?", ""), strict=True)
    ]
    found = conversations.tokenize(types.Record("a", tuple(turns)), ours, template, 10**6)
    learnt = [id_ for id_ in found.labels.tolist() if id_ != types.IGNORE_LABEL]
    text = theirs.apply_chat_template(chats.messages(turns), tokenize=False)
    assert found.ids.tolist() == theirs(text)["input_ids"]
    end = theirs.eos_token_id
    assert learnt == [*theirs("A cat. ")["input_ids"], end, end] and found.noted.crossing == 0


def test_a_learnt_answer_reads_as_the_answer(read):
    name, _, ours, template = read
    turns = (types.Turn("human", "the cat"), types.Turn("gpt", "I cannot"))
    found = conversations.tokenize(types.Record("a", turns), ours, template, 10**6)
    learnt = found.ids[found.labels != types.IGNORE_LABEL].tolist()
    assert ours.decode(learnt, skip_special=False) == f"I cannot{chats.FORMATS[name].end}"
    cut = conversations.tokenize(types.Record("a", turns), ours, template, len(found.ids) - 2)
    assert cut.ids.tolist() == found.ids[:-2].tolist() and len(cut.labels) == len(cut.ids)


def test_what_a_template_does_not_take_names_the_record(read):
    name, _, ours, template = read
    system = (types.Turn("system", "be kind"), types.Turn("human", "a"), types.Turn("gpt", "b"))
    record = types.Record("a", system, origin="f.json: record 0")
    if chats.FORMATS[name].system:
        conversations.tokenize(record, ours, template, 99)
        return
    with pytest.raises(errors.UserError, match=r"^f\.json: record 0: template folder refuses the conversation: [CSO]"):
        conversations.tokenize(record, ours, template, 99)


def test_a_template_without_end_tokens_cannot_be_learnt(read):
    _, _, ours, template = read
    spans.check(ours, template)
    without = jinja_template.JinjaTemplate("folder", "{% for m in messages %}{{ m.content }}\n{% endfor %}", ())
    message = r"^template folder has no end token behind an answer but '\\nc\\nd\\n', so that a model trained with it "
    with pytest.raises(errors.UserError, match=message):
        spans.check(ours, without)


def test_a_prompt_is_the_beginning_of_the_conversation(read):
    _, _, ours, template = read
    prompt = conversations.tokenize_prompt("the cat", 0, ours, template)
    turns = (types.Turn("human", "the cat"), types.Turn("gpt", "No."))
    whole = conversations.tokenize(types.Record("a", turns), ours, template, 10**6)
    assert whole.ids[: len(prompt)].tolist() == prompt.tolist()
    assert (whole.labels[: len(prompt)] == types.IGNORE_LABEL).all()
