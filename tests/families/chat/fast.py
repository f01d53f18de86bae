"""Tiny folders of tokenizers with a tokenizer.json, made by the tokenizers library, as models' folders hold them."""

from __future__ import annotations

import json
import pathlib

import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import trainers
import transformers

from tests.families.chat import chats

CORPUS = [
    *chats.WORDS,
    "assistant\n",
    "user\n",
    "model\n",
    "system\n",
    "[INST] cat [/INST]",
    "the cat sat on the caf\u00e9",
]

# Where Llama 3 separates words: line breaks stay together, whatever follows.
WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def byte_level(special: list[str]) -> tokenizers.Tokenizer:
    """Of the kind of Llama 3's and of most ChatML models'."""
    made = tokenizers.Tokenizer(models.BPE())
    apart = pre_tokenizers.Split(tokenizers.Regex(WORD), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([apart, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def with_byte_fallback(special: list[str]) -> tokenizers.Tokenizer:
    """Of the kind of Gemma's: spaces are a letter of their own, and unknown characters become bytes."""
    fallback = [f"<0x{i:02X}>" for i in range(256)]
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    alphabet = [*map(chr, range(33, 127)), "\u2581"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*special, "<unk>", *fallback],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        min_frequency=1,
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    plain = json.loads(made.to_str())  # the bytes are pieces, not special tokens
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] not in fallback]
    return tokenizers.Tokenizer.from_str(json.dumps(plain))


def save(folder: pathlib.Path, form: chats.Format, kind: str) -> transformers.PreTrainedTokenizerFast:
    """Write a tokenizer of a kind with a format's special tokens and chat template; returns it as transformers has
    it."""
    special = [*dict.fromkeys([*form.named.values(), *form.others])]
    native = byte_level(special) if kind == "byte_level" else with_byte_fallback(special)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=native,
        chat_template=form.template,
        extra_special_tokens=list(form.others),
        clean_up_tokenization_spaces=False,
        **form.named,
    )
    made.save_pretrained(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)
