from __future__ import annotations

import io
import pathlib

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from tests.data import stand
from vlguard_jax.families.chat import piece_model
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.families.chat import words

TEXT = st.text(alphabet=st.sampled_from(" \u2581\n\tabfox.?'0<un k>é漢🙂"), max_size=60)


def without_words(tokenizer):
    """The same tokenizer, sentencepiece seeing whole texts."""
    tokenizer._by_word = None
    return tokenizer


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "not legacy"])
def pair(request, tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in "ab"]
    fast, slow = (stand.make_tokenizer(folder, added={"<tool>": 420}, legacy=request.param) for folder in folders)
    assert fast._by_word is not None
    return fast, without_words(slow)


@settings(max_examples=400, deadline=None)
@given(
    text=st.one_of(TEXT, st.lists(st.sampled_from([*stand.WORDS.split(), "</s>", "<tool>", "<s>", "  "])).map(" ".join))
)
def test_word_by_word_equals_whole_texts(pair, text):
    fast, slow = pair
    assert fast.encode(text) == slow.encode(text)
    assert fast.encode(text, add_bos=False) == slow.encode(text, add_bos=False)


def trained(**options) -> bytes:
    out = io.BytesIO()
    defaults = dict(
        model_type="bpe",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        vocab_size=90,
    )
    trainer = sentencepiece.SentencePieceTrainer.train
    trainer(sentence_iterator=iter([stand.WORDS] * 9), model_writer=out, minloglevel=2, **(defaults | options))
    return out.getvalue()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"remove_extra_whitespaces": True}, False),
        ({"model_type": "unigram"}, False),
        ({"normalization_rule_name": "nmt_nfkc"}, False),
        ({"split_by_whitespace": False, "vocab_size": 300}, False),
        ({"treat_whitespace_as_suffix": True}, False),
        ({"user_defined_symbols": ["a b"]}, False),
    ],
)
def test_what_can_be_separated(tmp_path, options, expected):
    (tmp_path / "tokenizer.model").write_bytes(trained(**options))
    assert words.separable(piece_model.read(tmp_path / "tokenizer.model")[1]) is expected


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(words, "REMEMBERED", 3)
    encoder = words.WordEncoder(lambda word: [len(word)])
    assert encoder("a bb ccc dddd eeeee a") == [1, 3, 4, 5, 6, 2]
    assert encoder("a bb ccc dddd  eeeee a") == [1, 3, 4, 5, 7, 2]
    assert len(encoder._any) <= 3 and len(encoder._behind_a_space) <= 3


def test_a_model_that_puts_no_space_in_front(tmp_path: pathlib.Path) -> None:
    """As Gemma's: neither does the tokenizer."""
    model = sentencepiece_model_pb2.ModelProto.FromString(stand.model_bytes())
    model.normalizer_spec.add_dummy_prefix = False
    folder = stand.write_tokenizer(tmp_path, legacy=True)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    found = tokenizer_lib.read(folder)
    for text in ("The fox", "fox fox", "a"):
        assert found.encode(text, add_bos=False) == found._pieces.EncodeAsIds(text)
