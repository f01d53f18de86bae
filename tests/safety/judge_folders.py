"""Tiny random judges in folders of the published layouts, as transformers saves them."""

from __future__ import annotations

import io
import json
import pathlib

import sentencepiece
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers
import torch
import transformers

from vlguard_jax.safety.judges import guards

TURNS = [("Is the fence blue?", "Yes, it is.")]
CORPUS = [guard.prompt(TURNS) for guard in guards.GUARDS.values()] + ["safe unsafe yes no S1 O2"] * 20
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SPECIAL = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|im_start|>", "<|im_end|>")


def write(folder: pathlib.Path, kind: str, *, positions: int = 4096, seed: int = 0) -> pathlib.Path:
    """A Llama 2 with its sentencepiece model (Llama Guard 1, HarmBench), or a Llama 3 with a byte-level tokenizer
    (Llama Guard 3; and Qwen3Guard, whose own family is another), in shards."""
    folder.mkdir(parents=True)
    old = kind in ("llama_guard_1", "harmbench")
    rows = _pieces(folder) if old else _bytes(folder)
    torch.manual_seed(seed)
    sizes = transformers.LlamaConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4 if old else 2,
        max_position_embeddings=positions,
        rms_norm_eps=1e-5,
        initializer_range=0.3,
        bos_token_id=1 if old else 0,
        eos_token_id=2 if old else [1, 5],
        **({} if old else {"rope_parameters": LLAMA3}),
    )
    transformers.LlamaForCausalLM(sizes).save_pretrained(folder, max_shard_size="80KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def _pieces(folder: pathlib.Path) -> int:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=out,
        model_type="bpe",
        vocab_size=1000,
        byte_fallback=True,
        split_digits=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        max_sentence_length=10000,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue()).get_piece_size()


def _bytes(folder: pathlib.Path) -> int:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=1000, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        extra_special_tokens=list(SPECIAL[2:]),
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    return len(fast)
