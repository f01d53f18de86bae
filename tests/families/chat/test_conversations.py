from __future__ import annotations

import numpy as np
import pytest

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import templates

VICUNA = templates.get_template("vicuna_v1")


@pytest.fixture(params=[False, True], ids=["nonlegacy", "legacy"])
def tokenizer(request, tmp_path):
    return stand.make_tokenizer(tmp_path, legacy=request.param)


def supervised(tokens: types.Tokens, tokenizer) -> str:
    return tokenizer.decode(tokens.labels[tokens.labels != types.IGNORE_LABEL].tolist(), skip_special=False)


def test_rendering():
    assert (
        VICUNA.render(["Hi", "No.", "Why?", None])
        == f"{VICUNA.system} USER: Hi ASSISTANT: No.</s>USER: Why? ASSISTANT:"
    )
    assert VICUNA.render(["Hi", ""]).endswith("USER: Hi ASSISTANT:")
    assert VICUNA.prompt("Why?", 2) == f"{VICUNA.system} USER: <image>\n<image>\nWhy? ASSISTANT:"
    assert templates.get_template("llava_v1").system == VICUNA.system.replace("user", "human")


@pytest.mark.parametrize("name", ["vicuna_v1", "mistral_instruct"])
def test_a_question_in_a_conversation_is_asked_as_it_is_trained(tokenizer, name):
    """Its ids are those that stand before the answer in training, and the first one's are those of a question alone."""
    template = templates.get_template(name)
    record = stand.record("<image>\nWhat is this?", "A flyer.", "<image>\nAnd this?", "no.", images=("a", "b"))
    trained = conversations.tokenize(record, tokenizer, template, 2048).ids.tolist()
    before = [types.Round("What is this?", 1, "A flyer.")]
    asked = conversations.tokenize_prompt("And this?", 1, tokenizer, template, before=before).tolist()
    first = conversations.tokenize_prompt("What is this?", 1, tokenizer, template).tolist()
    assert trained[: len(asked)] == asked and asked[: len(first)] == first and asked.count(types.IMAGE_TOKEN) == 2
    with pytest.raises(errors.UserError, match="a question holds the text '<image>', which stands for a picture"):
        conversations.tokenize_prompt("an <image>", 0, tokenizer, template, before=before)


def test_unknown_template_names_the_nearest():
    with pytest.raises(errors.UserError, match=r"^template 'vicuna_v2' is unknown; did you mean 'vicuna_v1'\?$"):
        templates.get_template("vicuna_v2")


def test_answer_and_its_end_are_supervised(tokenizer):
    tokens = conversations.tokenize(stand.record("What is this?", "A flyer."), tokenizer, VICUNA, 2048)
    assert tokens.mismatch is None
    assert supervised(tokens, tokenizer) == (" A flyer.</s>" if tokenizer.legacy else "A flyer.</s>")


def test_every_round_is_supervised(tmp_path):
    # Without the legacy flag the reference's arithmetic fits only vocabularies in which "USER" is one piece; the golden
    # test has one.
    tokenizer = stand.make_tokenizer(tmp_path, legacy=True)
    tokens = conversations.tokenize(stand.record("What is this?", "A flyer.", "fox", "dog."), tokenizer, VICUNA, 2048)
    assert tokens.mismatch is None
    assert supervised(tokens, tokenizer) == " A flyer.</s> dog.</s>"


def test_picture_tag_moves_to_the_front(tokenizer):
    a, b = (
        conversations.tokenize(stand.record(text, "no.", images=("a.png",)), tokenizer, VICUNA, 2048)
        for text in ("What is this?\n<image>", "<image>What is this?")
    )
    np.testing.assert_array_equal(a.ids, b.ids)
    assert (a.ids == types.IMAGE_TOKEN).sum() == 1
    assert conversations.count_tags(stand.record("<image> <image>", "no.", "<image>", "no.", images=("a", "b"))) == 2


def test_several_pictures_in_one_turn(tokenizer):
    """The reference has one picture a conversation; with one for each tag, the tags of a turn stay where they are."""
    text = "Compare <image> with <image>."
    both = stand.record(text, "no.", "And <image>?", "no.", images=("a", "b", "c"))
    tokens = conversations.tokenize(both, tokenizer, VICUNA, 2048)
    assert conversations.count_tags(both) == 3
    rendered = VICUNA.render([text, "no.", "<image>\nAnd ?", "no."])
    assert tokens.ids.tolist() == conversations.tokenize_text(rendered, tokenizer)
    alone = stand.record(text, "no.", images=("a",))  # as the reference: one tag, in front
    assert conversations.count_tags(alone) == 1
    merged = stand.record("<image>\nCompare  with .", "no.", images=("a",))
    assert conversations.tokenize(alone, tokenizer, VICUNA, 2048).ids.tolist() == (
        conversations.tokenize(merged, tokenizer, VICUNA, 2048).ids.tolist()
    )


def test_tag_without_pictures_is_plain_text(tokenizer):
    tokens = conversations.tokenize(stand.record("What is <image>?", "no."), tokenizer, VICUNA, 2048)
    assert types.IMAGE_TOKEN not in tokens.ids
    assert conversations.count_tags(stand.record("What is <image>?", "no.")) == 1


def test_text_only_is_cut_here_and_pictures_are_not(tokenizer):
    texts = ("What is this? " * 20, "A flyer.")
    assert len(conversations.tokenize(stand.record(*texts), tokenizer, VICUNA, 50).ids) == 50
    assert len(conversations.tokenize(stand.record(*texts, images=("a",)), tokenizer, VICUNA, 50).ids) > 50


def test_odd_text_voids_the_sample(tokenizer):
    for answer, cause in (
        ("", "turn 2, from 'gpt', is empty"),
        ("say ASSISTANT: no", "turn 2, from 'gpt', holds 'ASSISTANT:', the mark in front of an answer"),
        ("one</s>two", "turn 2, from 'gpt', holds '</s>', the mark at the end of an answer"),
        ("<unk>", "turn 2, from 'gpt', holds text that becomes the unknown token, which is not counted"),
        (None, "the last question has no answer"),
    ):
        record = stand.record("fox", *([] if answer is None else [answer]))
        tokens = conversations.tokenize(record, tokenizer, VICUNA, 2048)
        assert tokens.mismatch.startswith("WARNING: tokenization mismatch: ")
        assert (tokens.labels == types.IGNORE_LABEL).all()
        assert conversations.mismatch_cause(record, tokenizer, VICUNA) == cause


def test_leading_answer_is_dropped_and_order_is_checked(tokenizer):
    greeting = types.Record(
        "r", (types.Turn("gpt", "hi"), *stand.record("fox", "dog.").turns), origin="f.json: record 3"
    )
    plain = conversations.tokenize(stand.record("fox", "dog."), tokenizer, VICUNA, 2048)
    np.testing.assert_array_equal(conversations.tokenize(greeting, tokenizer, VICUNA, 2048).ids, plain.ids)
    twice = types.Record("r", (types.Turn("human", "a"), types.Turn("human", "b")), origin="f.json: record 4")
    with pytest.raises(errors.UserError, match=r"^f\.json: record 4: turn 2 is from 'human', expected 'gpt'$"):
        conversations.tokenize(twice, tokenizer, VICUNA, 2048)


def test_prompts(tokenizer):
    ids = conversations.tokenize_prompt("What is this?", 2, tokenizer, VICUNA)
    assert (ids == types.IMAGE_TOKEN).sum() == 2 and (ids == tokenizer.bos_id).sum() == 1
    assert types.IMAGE_TOKEN not in conversations.tokenize_prompt("What is <image>?", 0, tokenizer, VICUNA)
    with pytest.raises(errors.UserError, match="which stands for a picture: remove it"):
        conversations.tokenize_prompt("What is <image>?", 1, tokenizer, VICUNA)
