"""A tokenizer.json gives the ids, characters and texts that transformers gives."""

from __future__ import annotations

import json
import pathlib
import pickle
import random
from typing import Any

import pytest
import tokenizers
import transformers

from tests.data import stand
from tests.families.chat import json_folders
from vlguard_jax import errors
from vlguard_jax.families.chat import json_tokenizer
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

PARTS = [
    *"The quick brown fox.USER: é日\n▁ <>/s0123\t\r\x00;K",
    *("  ", "   ", "\n\n", " \n", "\u0301", "\u0338", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "\u200b", "\u180e"),
    *(
        "😀",
        "👨‍👩‍👧",
        "don't",
        "I'LL",
        " 12345",
        "½",
        "١٢",
        "…",
        "_x_",
        "\uff1b",
        "≮",
        "ﬁ",
        "¨",
        "n\u0303",
        "[X]",
        "[Y]",
        "[Z]",
    ),
    *(json_folders.BEGIN, json_folders.END, json_folders.PAD, "<unk>", "<0x41>", " word", " some", " more"),
]
ADDED = (
    tokenizers.AddedToken("[X]", lstrip=True, normalized=True),
    tokenizers.AddedToken("[Y]", rstrip=True, special=True, normalized=False),
    tokenizers.AddedToken("[Z]", single_word=True, normalized=False),
)
PLAIN = (tokenizers.AddedToken("[X]", normalized=False), tokenizers.AddedToken("[Y]", normalized=True))


def texts(number: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    found = [*json_folders.SENTENCES[:3], "", " "]
    for i in range(number):
        words = ["".join(rng.choices(PARTS, k=rng.randrange(5))) for _ in range(rng.randrange(12))]
        found.append((" " if i % 3 else "").join(words))
    return found


@pytest.mark.parametrize("added", [(), PLAIN, ADDED], ids=["none", "plain", "flags"])
@pytest.mark.parametrize("kind", json_folders.KINDS)
def test_as_transformers(tmp_path: pathlib.Path, kind: str, added: tuple[tokenizers.AddedToken, ...]) -> None:
    folder = json_folders.write(tmp_path, kind, added, pad_token=json_folders.PAD)
    ours, theirs = tokenizer_lib.load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert isinstance(ours, json_tokenizer.JsonTokenizer)
    assert (ours._words is None) == (
        kind == "unigram" or added == ADDED or (bool(added) and kind in ("qwen2", "gemma"))
    )
    theirs.backend_tokenizer.post_processor = None  # some trim the characters
    for text in texts(300, 0):
        found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = ours.encode_with_offsets(text)
        assert ids == ours.encode(text, add_bos=False) == found["input_ids"], text
        assert offsets == [tuple(span) for span in found["offset_mapping"]], text
        for skip in (False, True):
            shown = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special=skip) == shown


@pytest.mark.parametrize("kind", ["gpt2", "smollm"])
def test_a_vocabulary_may_lack_bytes_that_no_text_has(tmp_path: pathlib.Path, kind: str) -> None:
    """As SmolLM2's; a character of such bytes has no id."""
    folder = json_folders.write(tmp_path, kind)
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    lacking = {**vocab}
    for piece in ("\u0104", "\u00c0", "\u00f1"):  # of the bytes 04, C0 and F1
        del lacking[piece]
    json_folders.change(folder, model={"vocab": lacking})
    ours, theirs = tokenizer_lib.load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    theirs.backend_tokenizer.post_processor = None
    for text in ("\x04", "a\x04b \x04\x04 the", "x \U00041234y", "fox\x04.\n", *texts(30, 1)):
        found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = ours.encode_with_offsets(text)
        assert ids == ours.encode(text, add_bos=False) == found["input_ids"], text
        assert offsets == [tuple(span) for span in found["offset_mapping"]], text
    del lacking["\u00c3"]  # of the byte C3, with which é begins
    json_folders.change(folder, model={"vocab": lacking})
    tokenizer_lib.read.cache_clear()
    with pytest.raises(errors.UserError, match="it would drop characters"):
        tokenizer_lib.load_tokenizer(folder)


@pytest.mark.parametrize("kind", json_folders.KINDS)
def test_the_begin_token_is_what_transformers_adds(tmp_path: pathlib.Path, kind: str) -> None:
    folder = json_folders.write(tmp_path, kind, bos_token=json_folders.BEGIN, add_bos_token=True)
    ours, theirs = tokenizer_lib.load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.bos_id == (0 if kind in ("llama3", "gemma", "unigram") else None)
    assert ours.encode("The fox") == theirs.encode("The fox")
    assert ours.special == {"bos_token": json_folders.BEGIN, "eos_token": json_folders.END}


def test_what_it_says_of_itself(tmp_path: pathlib.Path) -> None:
    folder = json_folders.write(tmp_path, "qwen2", PLAIN, pad_token=json_folders.PAD)
    found = tokenizer_lib.load_tokenizer(folder)
    assert isinstance(found, tokenizer_lib.Tokenizer)
    assert (found.bos_id, found.eos_id, found.unk_id, found.pad_id, found.masked_id) == (None, 1, None, 2, None)
    assert found.stop_ids == (1,) and found.eos_text == json_folders.END
    assert found.size == found.vocab_size + 2 and found.added["[Y]"].id == found.size - 1
    assert pickle.loads(pickle.dumps(found)) is found
    without = tokenizer_lib.load_tokenizer(json_folders.write(tmp_path / "other", "qwen2"))
    assert without.pad_id == without.eos_id and without.fingerprint != found.fingerprint
    with pytest.raises(errors.UserError, match=r"the model wrote the token 9,999, which is none of the tokenizer's"):
        found.decode([9999])


def test_tokens_of_the_other_files(tmp_path: pathlib.Path) -> None:
    """As transformers adds them: by id those of tokenizer_config.json, then those that are only named."""
    size = tokenizer_lib.load_tokenizer(json_folders.write(tmp_path / "plain", "llama3")).size
    decoder = {str(size + i): {"content": text, "special": bool(i)} for i, text in enumerate(["[X]", "[Y]"])}
    config = {"added_tokens_decoder": decoder, "unk_token": "[U]", "additional_special_tokens": ["[M]"]}
    folder = json_folders.write(tmp_path / "config", "llama3", **config)
    other = json_folders.write(tmp_path / "legacy", "llama3")
    (other / "added_tokens.json").write_text(json.dumps({"[X]": size, "[Y]": size + 1}))
    (other / "special_tokens_map.json").write_text(json.dumps({"unk_token": {"content": "[U]", "lstrip": True}}))
    for one in (folder, other):
        ours, theirs = tokenizer_lib.load_tokenizer(one), transformers.AutoTokenizer.from_pretrained(one)
        ids = {text: token.id for text, token in ours.added.items()}
        assert ids == theirs.get_added_vocab() and ours.unk_id == theirs.unk_token_id
        for text in ("[X]a[Y] [U]", "x [U] [M]y", "[M][X]"):
            assert ours.encode(text) == theirs.encode(text), (one, text)


def test_the_tokens_of_the_other_layout_are_left_out(tmp_path: pathlib.Path) -> None:
    plain = tokenizer_lib.load_tokenizer(json_folders.write(tmp_path / "llava", "qwen2", PLAIN))
    hf = [tokenizers.AddedToken(text, special=True) for text in ("<image>", "<pad>")]
    other = json_folders.write(tmp_path / "hf", "qwen2", (*PLAIN, *hf), pad_token="<pad>")
    found = tokenizer_lib.load_tokenizer(other)
    assert found.encode("a <image> b<pad>") == plain.encode("a <image> b<pad>")
    assert (found.size, found.pad_id, found.fingerprint) == (plain.size, plain.eos_id, plain.fingerprint)


SPLIT: dict[str, Any] = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def splitter(**changed: Any) -> dict[str, Any]:
    """The pre-tokenizer of a file."""
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT | changed, BYTES]}}


DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": {"type": "WordLevel"}}, "the model 'WordLevel' is of a kind that is not read"),
    "dropout": ({"model": {"dropout": 0.1}}, "a model with dropout 0.1 is of a kind that is not read"),
    "suffix": ({"model": {"end_of_word_suffix": "</w>"}}, "a model with end_of_word_suffix '</w>' is of a kind"),
    "normalizer": ({"normalizer": {"type": "Bert"}}, "the normalizer 'Bert' is of a kind that is not read"),
    "untyped": ({"normalizer": {"types": []}}, "names no type"),
    "nested": ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 99}}, "has more than 16 parts"),
    "no sequence": ({"decoder": {"type": "Sequence"}}, "a sequence in its decoder is no list"),
    "growing": (
        {"normalizer": {"type": "Sequence", "normalizers": [DOUBLE] * 7}},
        "make a text up to 128 times as long",
    ),
    "slow pattern": (splitter(), "repeats a repetition, which may never end"),
    "no pattern": (splitter(pattern={"Regex": ""}), "must be a text of 1 to 2000 characters"),
    "broken pattern": (splitter(pattern={"Regex": "(a"}), "the tokenizers library refuses it"),
    "behavior": (splitter(pattern={"String": "a"}, behavior=3), "behavior of Split is 3"),
    "table": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        "not one of sentencepiece's own",
    ),
    "processor": ({"post_processor": {"type": "BertProcessing"}}, "the post_processor 'BertProcessing' is of a kind"),
    "merge": ({"model": {"merges": [["a"]]}}, "is not a merge of two pieces"),
    "other merge": ({"model": {"merges": ["qq zz"]}}, "merges 'qq zz', which are not its pieces"),
    "same ids": ({"model": {"vocab": {"a": 1, "b": 1}}}, "the ids of its pieces must be distinct numbers"),
    "drops": ({"model": {"vocab": {"a": 0, "b": 1}, "merges": []}}, "it would drop characters"),
    "unknown": ({"model": {"unk_token": "[no]"}}, "its unknown token '\\[no\\]' is not one of its pieces"),
    "added gap": ({"added_tokens": [{"id": 999, "content": "[X]"}]}, "has the id 999, and transformers would give it"),
    "added id": ({"added_tokens": [{"id": -1, "content": "[X]"}]}, "the id of the added token '\\[X\\]' is -1"),
    "added flag": ({"added_tokens": [{"id": 9, "content": "[X]", "lstrip": "no"}]}, "must be true or false"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: pathlib.Path, name: str) -> None:
    parts, message = BAD[name]
    folder = json_folders.change(json_folders.write(tmp_path, "gpt2"), **parts)
    with pytest.raises(errors.UserError, match=message) as caught:
        tokenizer_lib.read(folder)
    assert "\n" not in str(caught.value) and "tokenizer.json" in str(caught.value) + message


def test_bad_settings(tmp_path: pathlib.Path) -> None:
    no_end = json_folders.write(tmp_path / "1", "gpt2", eos_token=None)
    with pytest.raises(errors.UserError, match=r"eos_token of tokenizer_config\.json is None, which is not a token"):
        tokenizer_lib.read(no_end)
    splits = json_folders.write(tmp_path / "2", "gpt2", split_special_tokens=True)
    with pytest.raises(errors.UserError, match="split_special_tokens is not supported"):
        tokenizer_lib.load_tokenizer(splits)
    moved = {"9": {"content": "[X]", "special": True}}
    with pytest.raises(errors.UserError, match=r"'\[X\]' has the id 9, and transformers would give it"):
        tokenizer_lib.read(json_folders.write(tmp_path / "3", "gpt2", added_tokens_decoder=moved))


def test_a_pattern_that_gives_up(tmp_path: pathlib.Path) -> None:
    """The library panics; no trace is shown."""
    slow = splitter(pattern={"Regex": "a*a*a*a*a*a*a*a*$"})
    found = tokenizer_lib.read(json_folders.change(json_folders.write(tmp_path, "gpt2"), **slow))
    with pytest.raises(errors.UserError, match=r"the tokenizers library refuses it: .*retry-limit"):
        found.encode("a" * 300 + "!")


def test_both_files(tmp_path: pathlib.Path) -> None:
    """The sentencepiece model wins where it is of Llama-2's kind."""
    folder = json_folders.write(tmp_path, "gemma")
    made = stand.write_tokenizer(tmp_path / "llama")
    (folder / "tokenizer.model").write_bytes((made / "tokenizer.model").read_bytes())
    config = {"eos_token": "</s>", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert not isinstance(tokenizer_lib.read(folder), json_tokenizer.JsonTokenizer)


def test_a_padding_token_alone_is_the_models_own(tmp_path: pathlib.Path) -> None:
    """Only a llava-hf folder adds it together with the token for pictures."""
    pad = tokenizers.AddedToken("<pad>", special=True)
    folder = json_folders.write(tmp_path, "qwen2", (*PLAIN, pad), pad_token="<pad>")
    found, theirs = tokenizer_lib.read(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert found.pad_id == theirs.pad_token_id == found.added["<pad>"].id
    assert found.encode("a<pad> b") == theirs.encode("a<pad> b")
