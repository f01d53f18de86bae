"""Small tokenizer.json folders of every kind that is read, trained on the spot with the `tokenizers` library."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import processors
from tokenizers import trainers

from tests.data import stand
from tests.parity import vocabularies

LLAMA_3 = vocabularies.WORDS + r"\p{N}{1,3}" + vocabularies.REST
QWEN_2 = vocabularies.WORDS + r"\p{N}" + vocabularies.REST
KINDS = ("gpt2", "smollm", "llama3", "qwen2", "gemma", "unigram")
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
SENTENCES = [stand.WORDS, "Don't count 12345 or 67; it's what they'll do... (again)", "日本語 и ещё é ü 😀"] * 3


def write(
    folder: pathlib.Path, kind: str, added: tuple[tokenizers.AddedToken, ...] = (), **config: Any
) -> pathlib.Path:
    """A folder of one of KINDS; config: of tokenizer_config.json, beyond the end token."""
    made = tokenizers.Tokenizer.from_str(_trained(kind))
    made.add_tokens(list(added))
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | config))
    return folder


def change(folder: pathlib.Path, **parts: Any) -> pathlib.Path:
    """The folder with other parts in its tokenizer.json; those of the model are merged into it."""
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    model = parts.pop("model", {})
    path.write_text(json.dumps(found | parts | {"model": found["model"] | model}))
    return folder


@functools.cache
def _trained(kind: str) -> str:
    special = [BEGIN, END, PAD, "<unk>"]
    if kind == "unigram":
        made = tokenizers.Tokenizer(models.Unigram())
        made.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
        )
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer: Any = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    elif kind == "gemma":
        made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        bytes_ = [f"<0x{i:02X}>" for i in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=460, special_tokens=special + bytes_, max_token_length=12)
    else:
        made = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
        made.normalizer = normalizers.NFC() if kind == "qwen2" else None
        made.pre_tokenizer, made.decoder = _splitter(kind), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special[:3], initial_alphabet=alphabet)
    made.train_from_iterator(iter(SENTENCES), trainer)
    if kind == "gemma":  # bytes are pieces, found in no text
        definition = json.loads(made.to_str())
        definition["added_tokens"] = definition["added_tokens"][: len(special)]
        made = tokenizers.Tokenizer.from_str(json.dumps(definition))
    if kind in ("llama3", "gemma", "unigram"):
        id_ = made.token_to_id(BEGIN)
        template = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, id_)])
        made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    else:
        made.post_processor = processors.ByteLevel(trim_offsets=True)
    return made.to_str()


def _splitter(kind: str) -> Any:
    if kind == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    pattern = tokenizers.Regex(LLAMA_3 if kind == "llama3" else QWEN_2)
    split = pre_tokenizers.Split(pattern, behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
